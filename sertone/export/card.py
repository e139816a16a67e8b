"""The card of a bundle: what it answers, what it was trained on, how to use it."""

from typing import Any

from sertone import licences


def render(about: dict[str, Any]) -> str:
    """Markdown, of what `bundle.json` holds."""
    card = about["card"]
    rated = [f"{name} {scale['low']:g} to {scale['high']:g}" for name, scale in about["scales"].items()]
    lines = [
        f"# {about['name']}",
        "",
        f"Answers {', '.join([*about['classes'], *rated])}; {about['precision']}, ONNX.",
        f"Trained on {card['corpus']['title']}. {card['corpus']['citation']}.",
        "",
        *(f"- {entry['what']}: {licences.in_words(entry)}" for entry in about["licences"]),
        "",
        "```python",
        "import sertone",
        "",
        f'print(sertone.load("{about["name"]}").predict("speech.wav"))',
        "```",
        "",
    ]
    return "\n".join(lines)
