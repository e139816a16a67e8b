"""The model card of a distilled encoder, in the form of the Hugging Face hub: YAML metadata, then Markdown.

Everything in it follows from `encoder.json`; `templates/encoder.md` has the words.
"""

from typing import Any

from sertone import licences
from sertone.sharing.model_card import choose_licence, load_template


def render_encoder(about: dict[str, Any]) -> str:
    """The model card.

    Args:
        about: what `encoder.json` holds.
    """
    ledger = about["licences"]
    body = load_template("encoder.md").render(
        about=about,
        licences=ledger,
        of_hugging_face=_of_hugging_face(about),
        licence=choose_licence(ledger).get("license_name", choose_licence(ledger)["license"]),
        reservation=licences.describe_restriction(ledger),
        hours=about["result"]["audio_seconds"] / 3600,
        millions={name: count / 1e6 for name, count in about["parameters"].items()},
    )
    return f"---\n{_metadata(about).to_yaml()}\n---\n\n{body}"


def _of_hugging_face(about: dict[str, Any]) -> bool:
    return about["encoder"]["name"] == "architecture"


def _metadata(about: dict[str, Any]) -> Any:
    from huggingface_hub import ModelCardData

    licence = choose_licence(about["licences"])
    return ModelCardData(
        license=licence["license"],
        license_name=licence.get("license_name"),
        license_link=licence.get("license_link"),
        language=about["corpus"]["language"] or None,
        library_name="transformers" if _of_hugging_face(about) else "sertone",
        pipeline_tag="feature-extraction",
        tags=["speech", "distillation", "distilhubert"],
        base_model=about["teacher"] if "/" in about["teacher"] else None,
    )
