"""The model card of a bundle, as the Hugging Face hub expects it: YAML metadata, then Markdown.

Everything in it follows from `bundle.json`; `sharing/templates/bundle.md` is its text.
"""

from typing import Any

from sertone import licences
from sertone.scoring import display
from sertone.sharing.card_scores import Scores
from sertone.sharing.model_card import REPOSITORY, build_metadata, choose_licence, load_template


def render(about: dict[str, Any]) -> str:
    """Return the model card of a bundle.

    Args:
        about: the content of `bundle.json`.
    """
    ledger = about["licences"]
    licence = choose_licence(ledger)
    scores = Scores(**about["scores"]) if about.get("scores") else None
    elsewhere = {corpus: Scores(**values) for corpus, values in about.get("elsewhere", {}).items()}
    body = load_template("bundle.md").render(
        about=about,
        repository=REPOSITORY,
        card=about["card"],
        unknown=display.describe_unknown_speakers(about["card"]),
        licences=ledger,
        licence=licence.get("license_name", licence["license"]),
        reservation=licences.describe_restriction(ledger),
        scores=scores,
        elsewhere=elsewhere,
        measured=about.get("measured"),
        audit=about.get("audit"),
        figure=display.get_score_format,
    )
    model = about.get("model", {}).get("name", about["name"])
    metadata = build_metadata(about | {"model": {"name": model}}, scores, "onnx", about["precision"])
    return f"---\n{metadata.to_yaml()}\n---\n\n{body}"
