"""The model card of a checkpoint, in the form of the Hugging Face hub: YAML metadata, then Markdown.

Everything in it follows from `checkpoint.json` and the scores; `templates/card.md` has the words.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from sertone import licences
from sertone.scoring import display
from sertone.sharing.card_scores import Scores

REPOSITORY = "OWNER/NAME"
"""Stands for the repository until the model is pushed to one."""
PRIVATE = ("manifest", "demo")
"""Corpora that nobody else knows by that name."""
PRETRAINED = (*licences.PRETRAINED_PARTS.values(), licences.WHOLE_MODEL)
"""What a ledger calls what came from the hub."""
HUB_METRICS = {"ua": "recall", "wa": "accuracy", "ccc": "ccc"}
"""Score -> type of the metric on the hub; it has none of its own for CCC."""


def render(about: dict, scores: Scores | None = None) -> str:
    """The model card.

    Args:
        about: what the checkpoint says of itself (`folder.about`).
        scores: None where the model has not been scored.
    """
    card, licence = about["card"], choose_licence(about["licences"])
    classes, ratings = about["vocabulary"]["classes"].get("emotion", []), _ratings(about)
    body = load_template("card.md").render(
        repository=REPOSITORY,
        model=about["model"]["name"],
        encoder=_encoder(about),
        reads=_encoder(about, "text", "text encoder"),
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
        licence=licence.get("license_name", licence["license"]),
        reservation=licences.describe_restriction(about["licences"]),
        scores=scores,
        figure=display.get_score_format,
        figures=_figures(classes, ratings),
    )
    return f"---\n{build_metadata(about, scores).to_yaml()}\n---\n\n{body}"


def load_template(name: str) -> Any:
    """A template of a model card."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sertone.sharing"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": _code, "pct": lambda v: f"{v:.1%}", "licence": licences.describe_licence}
    return environment.get_template(name)


def _ratings(about: dict) -> dict[str, dict[str, Any]]:
    """Rating -> its scale; checkpoints of models that have no ratings need not say so."""
    return about["vocabulary"].get("ratings", {})


def _figures(classes: Sequence[str], ratings: Iterable[str]) -> dict[str, display.ScoreFormat]:
    """The kinds of scores that a model has."""
    scores = dict.fromkeys(
        display.parse_score_name(name)[1] for name in display.list_score_names(classes, ratings)
    )
    return {score: display.SCORE_FORMATS[score] for score in scores}


def choose_licence(entries: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The licence of a model as metadata of the hub: the most restrictive one among its parts.

    Where several restrict it most and are not the same, or the hub has no identifier: `other`, with a name.
    """
    top = max(map(_restriction, entries))
    most = list({entry["id"]: entry for entry in entries if _restriction(entry) == top}.values())
    if len(most) == 1 and most[0]["id"] != "other":
        return {"license": most[0]["id"]}
    names = [entry["name"].split(":")[0] if entry["id"] == "other" else entry["id"] for entry in most]
    named = {"license": "other", "license_name": "-and-".join(map(_slug, names))}
    return named | ({"license_link": most[0]["url"]} if len(most) == 1 and most[0]["url"] else {})


def _restriction(entry: dict[str, Any]) -> tuple[int, bool, bool]:
    """Grows with what is asked: no commerce, then the same terms for what is derived, then attribution."""
    commerce = {False: 2, None: 1, True: 0}[entry["commercial"]]
    bound = bool(re.search(r"-sa-|-nd-|odbl|sharing", entry["id"]))
    return commerce, bound, entry["id"] not in ("cc0-1.0", "pddl")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def build_metadata(about: dict, scores: Scores | None, *tags: str) -> Any:
    """The metadata of a checkpoint or a bundle, as `huggingface_hub.ModelCardData`.

    Args:
        about: its `model`, `card` and `licences`.
        scores: None where it has not been scored.
        tags: more of them.
    """
    from huggingface_hub import ModelCardData

    corpus, model = about["card"]["corpus"], about["model"]["name"]
    pretrained = [entry["of"] for entry in about["licences"] if entry["what"] in PRETRAINED]
    hub = [name for name in pretrained if "/" in name]
    licence = choose_licence(about["licences"])
    return ModelCardData(
        license=licence["license"],
        license_name=licence.get("license_name"),
        license_link=licence.get("license_link"),
        language=corpus.get("language") or None,
        library_name="sertone",
        pipeline_tag="audio-classification",
        tags=["speech-emotion-recognition", "emotion-recognition", "speech", model, *tags],
        base_model=(hub if len(hub) > 1 else hub[0]) if hub else None,
        datasets=None if corpus["name"] in ("", *PRIVATE) else [corpus["name"]],
        metrics=list(dict.fromkeys(metric for _, metric in _hub_metrics(scores))) if scores else None,
        model_name=f"{model}-{corpus['name']}" if scores else None,
        eval_results=_results(about["card"], scores) if scores else None,
    )


def _results(card: dict, scores: Scores) -> list:
    from huggingface_hub import EvalResult

    split = card["split"]["split"].replace("_", " ")
    pooled = "nested cross-validation, pooled" if scores.among else "cross-validation, pooled"
    return [
        EvalResult(
            task_type="audio-classification",
            task_name="Speech emotion recognition",
            dataset_type=card["corpus"]["name"],
            dataset_name=card["corpus"]["title"],
            dataset_config=pooled if scores.folds else f"{split}, fold {card['fold']}",
            dataset_split="test",
            metric_type=metric,
            metric_name=f"{display.get_score_format(name).label}, {card['metrics'][display.parse_score_name(name)[1]]}",
            metric_value=round(scores.values[name], 4),
            metric_args={"average": "macro"} if metric == "recall" else None,
        )
        for name, metric in _hub_metrics(scores)
    ]


def _hub_metrics(scores: Scores) -> list[tuple[str, str]]:
    """Name and the hub's type of every score that the metadata hold."""
    types = [(name, HUB_METRICS.get(display.parse_score_name(name)[1])) for name in scores.values]
    return [(name, metric) for name, metric in types if metric]


def _encoder(about: dict, part: str = "encoder", what: str = "encoder") -> str:
    """An encoder in words; empty where the model has none of that kind."""
    pretrained = next((entry["of"] for entry in about["licences"] if entry["what"] == what), None)
    if not about["model"].get(part):
        return ""
    before = [entry["of"] for entry in about["licences"] if entry["what"] == licences.ENCODER_CORPUS]
    since = f", trained before on {' and '.join(before)}" if before and part == "encoder" else ""
    if pretrained:
        return f"the pretrained {what} {_code(pretrained)}{since}"
    name = about["model"][part]
    called = _code(name.get("config", name).get("model_type", name["name"]))
    return f"the {what} {called}{since or ', trained from scratch'}"


def _code(text: object) -> str:
    """A name from a corpus, out of reach of Markdown."""
    return f"`{' '.join(str(text).replace('`', chr(39)).split())}`"
