"""Commands about trained models: compare, evaluate, describe and publish them."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sertone.cli.common import SHARE, STUDY, TRAIN, USE, Flag, Overrides, app, format_scores
from sertone.cli.reader_options import NO_READER_OPTIONS, ReaderOptions
from sertone.errors import SertoneError
from sertone.utils.terminal import print_status, print_text


@app.command(group=STUDY)
def compare(
    *runs: Path,
    force: Annotated[
        Flag, Parameter(help="Compare runs although their protocols differ; the result says so.")
    ] = False,
    json_: Annotated[Flag, Parameter(name="--json")] = False,
) -> int:
    """Compare runs or audits with the first one: scores, paired differences, 95 % intervals and p-values.

    Args:
        runs: Run folders, or folders of runs that differ in their seeds, as a study writes them. Or folders
            of `sertone audit`, on the same utterances.
        json_: Print one JSON object instead of a text.
    """
    from sertone import compare as compare_runs
    from sertone.analysis import comparison_text
    from sertone.analysis.audit import compare_audits

    comparison = compare_runs(runs, force=force)
    to_text = (compare_audits if "audits" in comparison else comparison_text).to_text
    print_text(json.dumps(comparison, ensure_ascii=False) if json_ else to_text(comparison))
    return 0


@app.command(group=TRAIN)
def evaluate(
    *arguments: str,
    out: Path | None = None,
    classes: str | None = None,
    emotions: str | None = None,
    text: str = "corpus",
    scales: str | None = None,
    only: str | None = None,
    reader: ReaderOptions = NO_READER_OPTIONS,
    fresh: Annotated[Flag, Parameter(help="Replace another evaluation that is in the folder.")] = False,
) -> int:
    """Score a model on a corpus: `sertone evaluate [MODEL] CORPUS ROOT`.

    This writes scores, predictions and a report. It warns of recordings and speakers that the model was
    trained on, and of models whose training data are not known.

    Args:
        arguments: First the model: a bundle, a checkpoint folder, a fold, a run (the mean of its folds'
            models), OWNER/NAME on the Hugging Face hub, or an audio-classification model of Hugging Face, as
            its folder, hf:FOLDER or hf:OWNER/NAME. Default: the model that comes with Sertone. Then the name
            of the corpus (`sertone corpora list`; `manifest` for a table of your own), and its folder or the
            table.
        out: Folder to write. Default: runs/MODEL-on-CORPUS.
        classes: Classes of the model to report: `angry,sad` leaves the others out,
            `happy=positive,sad=negative` renames and merges. Or a YAML file with a mapping.
        emotions: Emotions of the corpus that are classes of the model under another name, as in
            `joy=happy,rage=angry`.
        text: Source of the text for a model that uses text, as `data.text` of a recipe: `corpus`, `none`,
            `asr`, or `{source: asr, asr: {model: large-v3}}`.
        scales: Lowest and highest value of the ratings in a manifest: `valence=1:7,arousal=1:7`.
        only: Part of the corpus to use, as `data.only` of a recipe: `{partition: Test2}`.
    """
    import yaml

    from sertone import evaluate as evaluate_model
    from sertone.files import parse_map

    if len(arguments) not in (2, 3):
        raise SertoneError("bad_command", f"{len(arguments)} arguments", "[MODEL] CORPUS ROOT")
    model = arguments[0] if len(arguments) == 3 else None
    corpus, root = arguments[-2:]
    out = out or Path("runs") / f"{_shorten_name(model)}-on-{corpus}"
    evaluation = evaluate_model(
        model,
        corpus,
        root,
        out,
        classes=parse_map(classes, "--classes") if classes else None,
        emotions=parse_map(emotions, "--emotions") if emotions else None,
        text=yaml.safe_load(text),
        scales=_parse_scales(scales),
        only=yaml.safe_load(only) if only else None,
        reader=reader.to_keywords(),
        fresh=fresh,
    )
    for warning in evaluation.warnings:
        print_status(f"warning  {warning}")
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    print_text(format_scores(results["pooled"]))
    print_text(f"report  {out / 'report.html'}")
    return 0


def _shorten_name(model: str | None) -> str:
    """Return the end of a model's path, for the name of a folder."""
    from sertone.runtime import shipped

    return "-".join(Path((model or shipped.NAME).removeprefix("hf:")).parts[-2:]).strip("/")


def _parse_scales(text: str | None) -> dict[str, tuple[float, float]]:
    """Parse `valence=1:7` into the lowest and the highest value of valence."""
    from sertone.files import parse_map

    if not text:
        return {}
    scales = {}
    for name, limits in parse_map(text, "--scales").items():
        low, _, high = limits.partition(":")
        try:
            scales[name] = (float(low), float(high))
        except ValueError:
            expected = "RATING=LOWEST:HIGHEST, as valence=1:7"
            raise SertoneError("bad_map", f"--scales {text!r}", expected) from None
    return scales


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

    names_recipe = model is not None and is_recipe(model)
    folder = Path(model) if model and names_recipe else resolve_model_folder(model)
    if is_bundle(folder):
        from sertone.analysis import bundle_info as module  # needs no torch

        description = module.describe(folder)
    else:
        if not names_recipe:
            find_checkpoints(model or folder)  # names a missing file before torch is imported
        from sertone.analysis import info as module

        description = module.describe(model or folder, overrides or (), measure=measure)
    print_text(json.dumps(description, ensure_ascii=False) if json_ else module.to_text(description))
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
