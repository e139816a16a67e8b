"""The card of a bundle, in the form of the Hugging Face hub: YAML metadata, then Markdown.

Everything in it follows from `bundle.json`; `sharing/templates/bundle.md` has the words.
"""

from typing import Any

from sertone import licences
from sertone.scoring import display
from sertone.sharing.card_scores import Scores
from sertone.sharing.model_card import REPOSITORY, build_metadata, choose_licence, load_template


def render(about: dict[str, Any]) -> str:
    """The card, of what `bundle.json` holds."""
    ledger, scores = about["licences"], about.get("scores")
    licence, known = choose_licence(ledger), Scores(**scores) if scores else None
    elsewhere = {corpus: Scores(**own) for corpus, own in about.get("elsewhere", {}).items()}
    body = load_template("bundle.md").render(
        about=about,
        repository=REPOSITORY,
        card=about["card"],
        unknown=display.describe_unknown_speakers(about["card"]),
        licences=ledger,
        licence=licence.get("license_name", licence["license"]),
        reservation=licences.describe_restriction(ledger),
        scores=known,
        elsewhere=elsewhere,
        measured=about.get("measured"),
        figure=display.get_score_format,
    )
    model = about.get("model", {}).get("name", about["name"])
    found = build_metadata(about | {"model": {"name": model}}, known, "onnx", about["precision"])
    return f"---\n{found.to_yaml()}\n---\n\n{body}"
