"""Which layer of an encoder tells what: after oliveira2023 (arXiv 2305.19184), for any encoder and target.

The encoder is frozen; a linear probe per layer and target is trained on some speakers and tested on others.

out/layers.json, layers.csv, report.html    what was found
out/recipe.yaml, protocol.json              on what
out/features.store, probes/LAYER.json       what is done, so that an interrupted run goes on
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
PARTS: dict[str, str] = {"audio": "encoder", "text": "text"}
"""Modality -> the encoder's place in a recipe."""
SHARED = ("recipe.yaml", "protocol.json", "report.html")
"""What layers write under the same names as a run."""


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
    """Probes every layer of a recipe's encoder and writes what was found.

    No model is trained. What is done already is kept, as long as nothing that it follows from has changed.

    Args:
        recipe: corpus, folds and encoder.
        out: folder to write.
        names: targets, of `targets.TARGETS`; None: all that the corpus has labels for.
        modality: `audio`, the recipe's `model.encoder`, or `text`, its `model.text`.
        pooling: of the frames: `mean`, or `statistics`, mean and standard deviation.
        weights: a run whose learned layer weights are shown as well.
        jobs: processes that probe; None: one per core where there is much to do.
        quiet: no progress lines.

    Returns:
        what `layers.json` holds.

    Raises:
        SertoneError: as `prepare`, `features.build_probed_encoder`, `targets` and `layer_weights.learned`; `run_in_use`,
            `other_experiment`.
    """
    out, say = Path(out), RunProgress(0, quiet).say
    learned = learned_weights.load_layer_weights(weights) if weights else []
    experiment = prepare(recipe, say=say)
    source, utterances = features.build_probed_encoder(experiment, modality, say)
    about = _about(experiment, modality) | {"weights": learned, "weights_of": str(weights or "")}
    for warning in about["warnings"]:
        say(f"warning  {warning}")
    return probe_encoder(
        experiment, source, utterances, out, about, target_names, pooling=pooling, jobs=jobs, say=say
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
    """The same for an encoder that is there already.

    Args:
        experiment: corpus and folds.
        source: the encoder with its input.
        utterances: that have one; in which order makes no difference.
        out: folder to write.
        about: `encoder`, `modality`, `warnings`, `weights`, `weights_of`.
        names: as `layers`.
        pooling: as `layers`.
        jobs: as `layers`.
        say: told the progress.
    """
    utterances = sorted(utterances, key=lambda u: u.id)
    asked = build_targets(experiment, utterances, target_names)
    with lock(out):
        _refuse_other(out)
        store = ArrayStore(out / "features.store")
        features.extract_features(source, utterances, pooling, store, say)
        keys = features.compute_keys(source, utterances, pooling)
        found = ProbeRunner(store, keys, asked, out / "probes").run(jobs, say)
        results = about | {"pooling": pooling, "depth": source.depth} | _results(experiment, asked, found)
        _write(experiment, results, out)
    return results


def _about(experiment: Experiment, modality: Modality) -> dict[str, Any]:
    config = getattr(models.configure(experiment.recipe.model), PARTS[modality])
    known = hasattr(config, "source")
    name = _shown(config.source) if known else config.name
    warnings = [] if known else [f"the encoder {name} is not pretrained: its weights are random"]
    if modality == "text" and not known:
        warnings.append("its subwords were made from all texts, those of the test speakers too")
    if unknown := display.describe_unknown_speakers(experiment.card):
        warnings.append(unknown.removesuffix("."))
    return {"encoder": name, "modality": modality, "warnings": warnings}


def _shown(source: str) -> str:
    """A hub id as it is, of a folder its name."""
    return Path(source).resolve().name if Path(source).is_dir() else source


def _results(
    experiment: Experiment, asked: Sequence[Target], found: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    card = experiment.card
    return {
        "targets": {target.name: layer_scores.score_target(target, found[target.name]) for target in asked},
        "apart": layer_scores.compare_centres(asked, found),
        "corpus": card["corpus"],
        "tested": display.count_test_speakers(card),
        "split": card["split"],
        "folds": len(experiment.folds),
        "seed": experiment.recipe.train.seed,
        "versions": card["versions"],
    }


def _refuse_other(out: Path) -> None:
    """A folder that holds a run, finished or not, is not written over."""
    trained = any(any(out.glob(name)) for name in RUN_FILES if name not in SHARED)
    if trained or ((out / "report.html").is_file() and not (out / "layers.json").is_file()):
        raise SertoneError(
            "other_experiment", f"{out} holds a run", "a folder of its own for the layers", "use --out"
        )


def _write(experiment: Experiment, results: dict[str, Any], out: Path) -> None:
    write_text(out / "recipe.yaml", recipes.dump(experiment.recipe))
    write_json(out / "protocol.json", experiment.card)
    write_text(out / "layers.csv", as_csv(results))
    write_json(out / "layers.json", results)
    report.write(out)


def as_csv(results: dict[str, Any]) -> str:
    """One line per target and layer."""
    text = io.StringIO()
    writer = csv.writer(text)
    others = ("pearson", "rmse", "wa")
    head = ["target", "layer", "score", "value", "low", "high", *others, "share_of_draws_best", "penalties"]
    writer.writerow([*head, "utterances", "speakers"])
    for name, target in results["targets"].items():
        shares = target["best"].get("shares") or [None] * len(target["layers"])
        for layer, share in zip(target["layers"], shares, strict=True):
            main, scores = target["score"], layer["scores"]
            bounds = layer["intervals"].get(main, (None, None))
            line = [name, layer["layer"], main, scores[main], *bounds, *(scores.get(each) for each in others)]
            penalties = " ".join(f"{penalty:g}" for penalty in layer["penalties"])
            writer.writerow([*line, share, penalties, target["utterances"], target["speakers"]])
    return text.getvalue()


def to_text(results: dict[str, Any]) -> str:
    """A table, a line per layer and a column per target, the best of each marked; then what it says."""
    named = results["targets"].items()
    rows = [["layer", *(report.format_label(name, target) for name, target in named)]]
    for number in range(results["depth"] + 1):
        rows.append([str(number), *(_cell(target, number) for _, target in named)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.ljust(n) for text, n in zip(row, widths, strict=True)).rstrip() for row in rows]
    chance = ", ".join(
        f"{name} {report.get_figure(target).format_value(target['chance'])}" for name, target in named
    )
    notes = [f"* the highest; 95 % intervals over {report.describe_drawn_units(results)}; chance: {chance}"]
    if "speaker" in results["targets"]:
        unknown = results["corpus"].get("unknown_speakers", 0)
        else_ = "new utterances, perhaps of the same unknown speakers" if unknown else "new speakers"
        notes.append(f"speaker: tested on other utterances of the same speakers; all else on {else_}")
    return "\n".join([*lines, "", *notes, "", *report.describe_results(results)])


def _cell(target: dict[str, Any], number: int) -> str:
    layer, figure = target["layers"][number], report.get_figure(target)
    mark = "*" if target["best"]["layer"] == number else " "
    bounds = report.format_interval(target, layer)
    return f"{figure.format_number(layer['scores'][target['score']])}{mark}" + f" ({bounds})" * bool(bounds)
