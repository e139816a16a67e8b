"""Commands about what has been trained: compare, evaluate, describe, publish."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from sertone.cli.common import SHARE, STUDY, TRAIN, USE, Flag, Overrides, app, format_scores
from sertone.cli.reader_options import NO_READER_OPTIONS, ReaderOptions
from sertone.errors import SertoneError
from sertone.utils.terminal import print_status, print_text


@app.command(group=STUDY)
def compare(
    *runs: Path,
    force: Annotated[Flag, Parameter(help="Compare runs whose protocols differ, and say so.")] = False,
    json_: Annotated[Flag, Parameter(name="--json")] = False,
) -> int:
    """Compare runs with the first one: scores, paired differences with 95 % intervals and p.

    Args:
        runs: Run folders, or folders of runs that differ in their seeds, as a study writes them.
        json_: Print one JSON object instead of a text.
    """
    from sertone.analysis.compare import compare as examine
    from sertone.analysis.compare import to_text

    found = examine(runs, force=force)
    print_text(json.dumps(found, ensure_ascii=False) if json_ else to_text(found))
    return 0


@app.command(group=TRAIN)
def evaluate(
    *what: str,
    out: Path | None = None,
    classes: str | None = None,
    emotions: str | None = None,
    text: str = "corpus",
    scales: str | None = None,
    only: str | None = None,
    reader: ReaderOptions = NO_READER_OPTIONS,
    fresh: Annotated[Flag, Parameter(help="Replace another evaluation that is in the folder.")] = False,
) -> int:
    """Score a model on a corpus: `sertone evaluate [MODEL] CORPUS ROOT` writes scores, predictions, report.

    Warns of recordings and speakers that the model has heard in training, or that nothing is known of it.

    Args:
        what: first the model: a bundle, a checkpoint folder, a fold, a run (the mean of its folds' models),
            OWNER/NAME on the Hugging Face hub, or an audio-classification model of Hugging Face, as its
            folder, hf:FOLDER or hf:OWNER/NAME; without one, the model that comes with Sertone. Then the name
            of the corpus (`sertone corpora list`; `manifest` for a table of your own), and its folder or the
            table.
        out: folder to write; runs/MODEL-on-CORPUS if not given.
        classes: classes to report, of those of the model: `angry,sad` leaves the others out,
            `happy=positive,sad=negative` renames and merges. Or a YAML file with a mapping.
        emotions: emotion of the corpus = class of the model, as `joy=happy,rage=angry`, where the names
            are not the same.
        text: where a model that reads has its text from, as `data.text` of a recipe: `corpus`, `none`, `asr`,
            or `{source: asr, asr: {model: large-v3}}`.
        scales: of a manifest's ratings, lowest and highest: `valence=1:7,arousal=1:7`.
        only: what of the corpus to take, as `data.only` of a recipe: `{partition: Test2}`.
    """
    import yaml

    from sertone.analysis.evaluate import evaluate as examine
    from sertone.labels import parse_map

    if len(what) not in (2, 3):
        raise SertoneError("bad_command", f"{len(what)} arguments", "[MODEL] CORPUS ROOT")
    model, corpus, root = what if len(what) == 3 else (None, *what)
    out = out or Path("runs") / f"{_short_name(model)}-on-{corpus}"
    settings: dict[str, Any] = {
        "classes": parse_map(classes, "--classes") if classes else None,
        "emotions": parse_map(emotions, "--emotions") if emotions else None,
        "text": yaml.safe_load(text),
        "scales": _scales(scales),
        "only": yaml.safe_load(only or "{}"),
        "reader": reader.to_keywords(),
    }
    for warning in examine(model, corpus, root, out, fresh=fresh, **settings).warnings:
        print_status(f"warning  {warning}")
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    print_text(format_scores(results["pooled"]))
    print_text(f"report  {out / 'report.html'}")
    return 0


def _short_name(model: str | None) -> str:
    """Return the end of a model's path, for the name of a folder."""
    from sertone.runtime import shipped

    return "-".join(Path((model or shipped.NAME).removeprefix("hf:")).parts[-2:]).strip("/")


def _scales(text: str | None) -> dict[str, tuple[float, float]]:
    """`valence=1:7` -> valence from 1 to 7."""
    from sertone.labels import parse_map

    pairs = {name: ends.partition(":") for name, ends in parse_map(text, "--scales").items()} if text else {}
    try:
        return {name: (float(low), float(high)) for name, (low, _, high) in pairs.items()}
    except ValueError:
        raise SertoneError("bad_map", f"--scales {text!r}", "RATING=LOWEST:HIGHEST, as valence=1:7") from None


@app.command(group=USE)
def info(
    model: str | None = None,
    /,
    *,
    overrides: Overrides = None,
    measure: Flag = False,
    json_: Annotated[Flag, Parameter(name="--json")] = False,
) -> int:
    """Describe a model: inputs, outputs, parameters, licences.

    Args:
        model: A bundle, a checkpoint folder, a fold, a run, or OWNER/NAME on the Hugging Face hub. Or a
            recipe, by path or name, which needs its corpus. Default: the model that comes with Sertone.
        measure: Measure speed and memory on this machine too. Bundles cannot be measured.
        json_: Print one JSON object instead of lines.
    """
    from sertone.catalogue import is_recipe
    from sertone.export.bundle_cache import resolve_model_folder
    from sertone.runtime.bundle import is_bundle
    from sertone.sharing.model_folder import find_checkpoints

    recipe = model is not None and is_recipe(model)
    folder = Path(model) if model and recipe else resolve_model_folder(model)
    if is_bundle(folder):
        from sertone.analysis import bundle_info as examiner  # which needs no torch

        found = examiner.describe(folder)
    else:
        if not recipe:
            find_checkpoints(model or folder)  # says what is missing before torch is asked for
        from sertone.analysis import info as examiner

        found = examiner.describe(model or folder, overrides or (), measure=measure)
    print_text(json.dumps(found, ensure_ascii=False) if json_ else examiner.to_text(found))
    return 0


@app.command(group=SHARE)
def push(
    model: Path,
    repository: str,
    /,
    *,
    private: Flag = False,
    scores: Path | None = None,
    message: str = "A model of Sertone",
) -> int:
    """Publish a model with its model card on the Hugging Face hub.

    Args:
        model: A bundle, a checkpoint folder, a fold, or a folder that `sertone train` wrote.
        repository: OWNER/NAME. It is created if it does not exist.
        private: Create a private repository.
        scores: A cross-validation of the same recipe, or a folder of `sertone choose`. The card states its
            scores.
        message: Message of the commit.
    """
    from sertone.sharing.push import push as upload

    print_text(upload(model, repository, private=private, scores=scores, message=message))
    return 0
