"""The shared look of all pages: light and dark, printable, readable on a phone."""

from pathlib import Path

from sertone.scoring import display


def write(path: Path, template: str, **values: object) -> Path:
    """Renders a page.

    Args:
        path: the HTML file.
        template: in `templates/`, one that extends `base.html`.
        values: what the template shows; text is escaped, `markupsafe.Markup` is not.

    Returns:
        the path.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sertone.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.globals |= {
        "pct": lambda v: f"{v:.1%}",
        "pct0": lambda v: f"{v:.0%}",
        "figure": display.get_score_format,
    }
    path.write_text(environment.get_template(template).render(**values), encoding="utf-8")
    return path
