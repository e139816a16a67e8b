"""Probes of all layers of an encoder, for any target, after oliveira2023 (arXiv 2305.19184).

The encoder is frozen. A linear probe per layer and target is trained on some speakers and tested on others.

out/layers.json, layers.csv, report.html    results
out/recipe.yaml, protocol.json              recipe, corpus and folds
out/features.store, probes/LAYER.json       intermediate results, to resume an interrupted run
"""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from sertone import models
from sertone import recipe as recipes
from sertone.analysis.layers import features, layer_scores, learned_weights
from sertone.analysis.layers.features import Pooling, ProbedEncoder
from sertone.analysis.layers.probe_jobs import ProbeRunner
from sertone.analysis.layers.targets import Target, build_targets
from sertone.errors import SertoneError
from sertone.files import write_json, write_text
from sertone.recipe import Recipe
from sertone.report import layers as report
from sertone.schema import Utterance
from sertone.scoring import display
from sertone.training.data.array_store import ArrayStore
from sertone.training.experiment.experiment import Experiment, prepare
from sertone.training.fit.progress import RunProgress
from sertone.training.runs.run_folder import RUN_FILES, lock

Modality = Literal["audio", "text"]
ENCODER_KEYS: dict[str, str] = {"audio": "encoder", "text": "text"}
"""Modality -> key of its encoder in the part `model` of a recipe."""
SHARED_FILES = ("recipe.yaml", "protocol.json", "report.html")
"""Files that have the same names as those of a run."""


def probe_layers(
    recipe: Recipe,
    out: str | Path,
    *,
    target_names: Sequence[str] | None = None,
    modality: Modality = "audio",
    pooling: Pooling = "mean",
    weights: str | Path | None = None,
    jobs: int | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Probe every layer of a recipe's encoder and write the results.

    No model is trained. Results of an earlier run are kept as long as they follow from the same data, folds,
    encoder and code.

    Args:
        recipe: corpus, folds and encoder.
        out: folder to write.
        target_names: some of `targets.TARGETS`; None: all for which the corpus has labels.
        modality: `audio` for the recipe's `model.encoder`, `text` for its `model.text`.
        pooling: pooling of the frames: `mean`, or `statistics`, mean and standard deviation.
        weights: a run whose learned layer weights are shown too.
        jobs: number of processes; None: one per core where there is much to do.
        quiet: print no progress.

    Returns:
        the content of `layers.json`.

    Raises:
        SertoneError: see `prepare`, `features.build_probed_encoder`, `targets.build_targets` and
            `learned_weights.load_layer_weights`; `run_in_use`, `other_experiment`.
    """
    say = RunProgress(0, quiet).say
    layer_weights = learned_weights.load_layer_weights(weights) if weights else []
    experiment = prepare(recipe, say=say)
    source, utterances = features.build_probed_encoder(experiment, modality, say)
    about = _describe_encoder(experiment, modality)
    # The page is passed on: a whole path would show the folders of this machine.
    about |= {"weights": layer_weights, "weights_of": Path(weights).name if weights else ""}
    for warning in about["warnings"]:
        say(f"warning  {warning}")
    return probe_encoder(
        experiment, source, utterances, Path(out), about, target_names, pooling=pooling, jobs=jobs, say=say
    )


def probe_encoder(
    experiment: Experiment,
    source: ProbedEncoder,
    utterances: Sequence[Utterance],
    out: Path,
    about: dict[str, Any],
    target_names: Sequence[str] | None = None,
    *,
    pooling: Pooling = "mean",
    jobs: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Probe every layer of an encoder that is built already.

    Args:
        experiment: corpus and folds.
        source: the encoder with its input.
        utterances: that the encoder can process, in any order.
        out: folder to write.
        about: `encoder`, `modality`, `warnings`, `weights`, `weights_of`.
        target_names: see `probe_layers`.
        pooling: see `probe_layers`.
        jobs: see `probe_layers`.
        say: receives progress lines.
    """
    # The order of utterances decides the batches, and with them rounding errors.
    utterances = sorted(utterances, key=lambda u: u.id)
    targets = build_targets(experiment, utterances, target_names)
    with lock(out):
        _refuse_run_folder(out)
        store = ArrayStore(out / "features.store")
        features.extract_features(source, utterances, pooling, store, say)
        keys = features.compute_keys(source, utterances, pooling)
        probe_results = ProbeRunner(store, keys, targets, out / "probes").run(jobs, say)
        results = about | {"pooling": pooling, "depth": source.depth}
        results |= _score_targets(experiment, targets, probe_results)
        _write_results(experiment, results, out)
    return results


def _describe_encoder(experiment: Experiment, modality: Modality) -> dict[str, Any]:
    """Return name and modality of the encoder, and warnings about it and the corpus."""
    config = getattr(models.configure(experiment.recipe.model), ENCODER_KEYS[modality])
    is_pretrained = hasattr(config, "source")
    # A path of this machine does not belong in a report.
    name = _shorten_source(config.source) if is_pretrained else config.name
    warnings = []
    if not is_pretrained:
        warnings.append(f"the encoder {name} is not pretrained: its weights are random")
        if modality == "text":
            warnings.append("its subwords were learned from all texts, including those of the test speakers")
    if unknown := display.describe_unknown_speakers(experiment.card):
        warnings.append(unknown.removesuffix("."))
    return {"encoder": name, "modality": modality, "warnings": warnings}


def _shorten_source(source: str) -> str:
    """Return a hub id unchanged, and the name of a folder without its path."""
    return Path(source).resolve().name if Path(source).is_dir() else source


def _score_targets(
    experiment: Experiment, targets: Sequence[Target], probe_results: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Return the scores of all targets, with what the report says about corpus and folds."""
    card = experiment.card
    return {
        "targets": {
            target.name: layer_scores.score_target(target, probe_results[target.name]) for target in targets
        },
        "apart": layer_scores.compare_centres(targets, probe_results),
        "corpus": card["corpus"],
        "tested": display.count_test_speakers(card),
        "split": card["split"],
        "folds": len(experiment.folds),
        "seed": experiment.recipe.train.seed,
        "versions": card["versions"],
    }


def _refuse_run_folder(out: Path) -> None:
    """Refuse to overwrite a folder that holds a run, finished or not."""
    is_run = any(any(out.glob(name)) for name in RUN_FILES if name not in SHARED_FILES)
    # A page without layers.json belongs to a run.
    if is_run or ((out / "report.html").is_file() and not (out / "layers.json").is_file()):
        raise SertoneError(
            "other_experiment", f"{out} holds a run", "a separate folder for the layers", "use --out"
        )


def _write_results(experiment: Experiment, results: dict[str, Any], out: Path) -> None:
    write_text(out / "recipe.yaml", recipes.dump(experiment.recipe))
    write_json(out / "protocol.json", experiment.card)
    write_text(out / "layers.csv", format_csv(results))
    write_json(out / "layers.json", results)
    report.write(out)


def format_csv(results: dict[str, Any]) -> str:
    """Format the results as CSV, with one line per target and layer."""
    text = io.StringIO()
    writer = csv.writer(text)
    secondary = ("pearson", "rmse", "wa")
    header = ["target", "layer", "score", "value", "low", "high", *secondary]
    writer.writerow([*header, "share_of_draws_best", "penalties", "utterances", "speakers"])
    for name, target in results["targets"].items():
        score = target["score"]
        # With a single speaker there are no draws, and no shares.
        shares = target["best"].get("shares") or [None] * len(target["layers"])
        for layer, share in zip(target["layers"], shares, strict=True):
            scores = layer["scores"]
            low, high = layer["intervals"].get(score, (None, None))
            line = [name, layer["layer"], score, scores[score], low, high]
            line += [scores.get(score_name) for score_name in secondary]
            penalties = " ".join(f"{penalty:g}" for penalty in layer["penalties"])
            writer.writerow([*line, share, penalties, target["utterances"], target["speakers"]])
    return text.getvalue()


def to_text(results: dict[str, Any]) -> str:
    """Format the results as a table with notes, for people.

    The table has a line per layer and a column per target, and marks the best layer of each target.
    """
    targets = results["targets"]
    rows = [["layer", *(report.format_label(name, target) for name, target in targets.items())]]
    for number in range(results["depth"] + 1):
        rows.append([str(number), *(_format_cell(target, number) for target in targets.values())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.ljust(n) for text, n in zip(row, widths, strict=True)).rstrip() for row in rows]
    chance = ", ".join(
        f"{name} {report.get_figure(target).format_value(target['chance'])}"
        for name, target in targets.items()
    )
    drawn_units = report.describe_drawn_units(results)
    notes = [f"* the highest; 95 % intervals over {drawn_units}; chance: {chance}"]
    if "speaker" in targets:
        has_unknown = results["corpus"].get("unknown_speakers", 0)
        tested = "new utterances, perhaps of the same unknown speakers" if has_unknown else "new speakers"
        notes.append(f"speaker: tested on other utterances of the same speakers; all else on {tested}")
    return "\n".join([*lines, "", *notes, "", *report.describe_results(results)])


def _format_cell(target: dict[str, Any], number: int) -> str:
    """Format the score of one layer, with its interval where it has one."""
    layer = target["layers"][number]
    score = report.get_figure(target).format_number(layer["scores"][target["score"]])
    mark = "*" if target["best"]["layer"] == number else " "
    bounds = report.format_interval(target, layer)
    return f"{score}{mark} ({bounds})" if bounds else f"{score}{mark}"
