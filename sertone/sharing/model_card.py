"""The model cards of a checkpoint and of a distilled encoder, in the form of the Hugging Face hub.

A card is YAML metadata, then Markdown. Everything in it follows from `checkpoint.json` and the scores, or
from `encoder.json`. The texts are in `templates/card.md` and `templates/encoder.md`.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from sertone import licences
from sertone.scoring import display
from sertone.sharing.card_scores import Scores

REPOSITORY = "OWNER/NAME"
"""Stands for the repository until the model is pushed to one."""
PRIVATE_CORPORA = ("manifest", "demo")
"""Corpora whose names mean nothing to others."""
PRETRAINED = (*licences.PRETRAINED_PARTS.values(), licences.WHOLE_MODEL)
"""Names that a ledger gives to what came from the hub."""
HUB_METRICS = {"ua": "recall", "wa": "accuracy", "ccc": "ccc"}
"""Score -> type of the metric on the hub. The hub has no official type for CCC."""


def render(about: dict, scores: Scores | None = None) -> str:
    """Return the model card of a checkpoint.

    Args:
        about: the content of its `checkpoint.json`.
        scores: None where the model has not been scored.
    """
    card = about["card"]
    classes = about["vocabulary"]["classes"].get("emotion", [])
    ratings = _get_ratings(about)
    body = load_template("card.md").render(
        repository=REPOSITORY,
        model=about["model"]["name"],
        encoder=_describe_encoder(about),
        text_encoder=_describe_encoder(about, "text", "text encoder"),
        classes=classes,
        ratings=ratings,
        merged={a: b for a, b in card["class_map"].items() if a != b} if classes else {},
        card=card,
        people=display.describe_speakers(card["corpus"]),
        unknown=display.describe_unknown_speakers(card),
        fold=next(fold for fold in card["folds"] if fold["name"] == card["fold"]),
        leak=next(report for report in card["leaks"] if report["fold"] == card["fold"]),
        everything=card["split"]["split"] == "everything",
        min_samples=about["min_samples"],
        licences=about["licences"],
        licence=_name_licence(about["licences"]),
        reservation=licences.describe_restriction(about["licences"]),
        scores=scores,
        figure=display.get_score_format,
        figures=_list_score_formats(classes, ratings),
    )
    return f"---\n{build_metadata(about, scores).to_yaml()}\n---\n\n{body}"


def render_encoder(about: dict[str, Any]) -> str:
    """Return the model card of a distilled encoder.

    Args:
        about: the content of its `encoder.json`.
    """
    ledger = about["licences"]
    body = load_template("encoder.md").render(
        about=about,
        licences=ledger,
        of_hugging_face=_is_hugging_face(about),
        licence=_name_licence(ledger),
        reservation=licences.describe_restriction(ledger),
        hours=about["result"]["audio_seconds"] / 3600,
        millions={name: count / 1e6 for name, count in about["parameters"].items()},
    )
    return f"---\n{_build_encoder_metadata(about).to_yaml()}\n---\n\n{body}"


def load_template(name: str) -> Any:
    """Load a template of a model card."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sertone.sharing"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,  # a misspelt variable is an error, not an empty place
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "code": _format_code,
        "pct": lambda share: f"{share:.1%}",
        "licence": licences.describe_licence,
    }
    return environment.get_template(name)


def _get_ratings(about: dict) -> dict[str, dict[str, Any]]:
    """Return rating -> its scale; checkpoints of models without ratings may leave the key out."""
    return about["vocabulary"].get("ratings", {})


def _list_score_formats(classes: Sequence[str], ratings: Iterable[str]) -> dict[str, display.ScoreFormat]:
    """Return score -> its format, one entry for all ratings together."""
    names = display.list_score_names(classes, ratings)
    scores = dict.fromkeys(display.parse_score_name(name)[1] for name in names)
    return {score: display.SCORE_FORMATS[score] for score in scores}


def choose_licence(entries: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return the licence of a model as metadata of the hub: the most restrictive one among its parts.

    It is `other`, with a name, where different licences are equally restrictive, or where the hub has no
    identifier.
    """
    top = max(map(_rank_restriction, entries))
    # By identifier, since several parts often have the same licence.
    strictest = list({entry["id"]: entry for entry in entries if _rank_restriction(entry) == top}.values())
    if len(strictest) == 1 and strictest[0]["id"] != "other":
        return {"license": strictest[0]["id"]}
    names = [entry["name"].split(":")[0] if entry["id"] == "other" else entry["id"] for entry in strictest]
    licence = {"license": "other", "license_name": "-and-".join(map(_slugify, names))}
    if len(strictest) == 1 and strictest[0]["url"]:
        licence["license_link"] = strictest[0]["url"]
    return licence


def _name_licence(entries: Sequence[dict[str, Any]]) -> str:
    licence = choose_licence(entries)
    return licence.get("license_name", licence["license"])


def _rank_restriction(entry: dict[str, Any]) -> tuple[int, bool, bool]:
    """Return a key that grows with the restriction.

    A ban on commercial use counts most, then the same terms for derived work, then attribution.
    """
    commerce = {False: 2, None: 1, True: 0}[entry["commercial"]]  # unknown lies between yes and no
    share_alike = bool(re.search(r"-sa-|-nd-|odbl|sharing", entry["id"]))
    attribution = entry["id"] not in ("cc0-1.0", "pddl")
    return commerce, share_alike, attribution


def _slugify(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def build_metadata(about: dict, scores: Scores | None, *tags: str) -> Any:
    """Return the metadata of a checkpoint or a bundle, as `huggingface_hub.ModelCardData`.

    Args:
        about: its `model`, `card` and `licences`.
        scores: None where it has not been scored.
        tags: further tags.
    """
    from huggingface_hub import ModelCardData

    corpus, model = about["card"]["corpus"], about["model"]["name"]
    pretrained = [entry["of"] for entry in about["licences"] if entry["what"] in PRETRAINED]
    hub_names = [name for name in pretrained if "/" in name]
    licence = choose_licence(about["licences"])
    return ModelCardData(
        license=licence["license"],
        license_name=licence.get("license_name"),
        license_link=licence.get("license_link"),
        language=corpus.get("language") or None,
        library_name="sertone",
        pipeline_tag="audio-classification",  # the hub has no task for emotion recognition
        tags=["speech-emotion-recognition", "emotion-recognition", "speech", model, *tags],
        base_model=(hub_names if len(hub_names) > 1 else hub_names[0]) if hub_names else None,
        datasets=None if corpus["name"] in ("", *PRIVATE_CORPORA) else [corpus["name"]],
        metrics=list(dict.fromkeys(metric for _, metric in _list_hub_metrics(scores))) if scores else None,
        model_name=f"{model}-{corpus['name']}" if scores else None,  # the hub requires it beside results
        eval_results=_build_results(about["card"], scores) if scores else None,
    )


def _build_encoder_metadata(about: dict[str, Any]) -> Any:
    from huggingface_hub import ModelCardData

    licence = choose_licence(about["licences"])
    return ModelCardData(
        license=licence["license"],
        license_name=licence.get("license_name"),
        license_link=licence.get("license_link"),
        language=about["corpus"]["language"] or None,
        library_name="transformers" if _is_hugging_face(about) else "sertone",
        pipeline_tag="feature-extraction",
        tags=["speech", "distillation", "distilhubert"],
        base_model=about["teacher"] if "/" in about["teacher"] else None,
    )


def _is_hugging_face(about: dict[str, Any]) -> bool:
    """Return whether transformers can load the encoder: an architecture of Hugging Face."""
    return about["encoder"]["name"] == "architecture"


def _build_results(card: dict, scores: Scores) -> list:
    """Return one `EvalResult` for each score that the hub has a type for."""
    from huggingface_hub import EvalResult

    split = card["split"]["split"].replace("_", " ")
    pooled = "nested cross-validation, pooled" if scores.among else "cross-validation, pooled"
    results = []
    for name, metric in _list_hub_metrics(scores):
        definition = card["metrics"][display.parse_score_name(name)[1]]
        result = EvalResult(
            task_type="audio-classification",
            task_name="Speech emotion recognition",
            dataset_type=card["corpus"]["name"],
            dataset_name=card["corpus"]["title"],
            dataset_config=pooled if scores.folds else f"{split}, fold {card['fold']}",
            dataset_split="test",
            metric_type=metric,
            metric_name=f"{display.get_score_format(name).label}, {definition}",
            metric_value=round(scores.values[name], 4),
            # The unweighted accuracy is the mean of the classes' recalls: macro-averaged recall.
            metric_args={"average": "macro"} if metric == "recall" else None,
        )
        results.append(result)
    return results


def _list_hub_metrics(scores: Scores) -> list[tuple[str, str]]:
    """Return name and hub type of every score that the metadata hold."""
    types = [(name, HUB_METRICS.get(display.parse_score_name(name)[1])) for name in scores.values]
    return [(name, metric) for name, metric in types if metric]


def _describe_encoder(about: dict, part: str = "encoder", entry_name: str = "encoder") -> str:
    """Return a phrase that describes an encoder; empty where the model has none of that kind.

    Args:
        about: the content of `checkpoint.json`.
        part: `encoder` or `text`, the key in its `model`.
        entry_name: the name of the part in the ledger of licences.
    """
    ledger, encoder = about["licences"], about["model"].get(part)
    if not encoder:
        return ""
    corpora = [entry["of"] for entry in ledger if entry["what"] == licences.ENCODER_CORPUS]
    history = f", trained before on {' and '.join(corpora)}" if corpora and part == "encoder" else ""
    pretrained = next((entry["of"] for entry in ledger if entry["what"] == entry_name), None)
    if pretrained:
        return f"the pretrained {entry_name} {_format_code(pretrained)}{history}"
    # An architecture of Hugging Face states its kind in its configuration.
    architecture = encoder.get("config", encoder).get("model_type", encoder["name"])
    return f"the {entry_name} {_format_code(architecture)}{history or ', trained from scratch'}"


def _format_code(text: object) -> str:
    """Return a name from a corpus as inline code, so that it cannot act as Markdown."""
    return f"`{' '.join(str(text).replace('`', chr(39)).split())}`"
