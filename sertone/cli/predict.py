"""`sertone predict`: the emotion of recordings."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, Token, UnknownOptionError

from sertone.cli.common import USE, Flag, app
from sertone.cli.timeline_options import TimelineOptions, expand_stem
from sertone.errors import AudioError, SertoneError
from sertone.utils.extras import install_command
from sertone.utils.terminal import print_text
from sertone.utils.wording import format_count

if TYPE_CHECKING:
    from sertone.runtime.answering import Model
    from sertone.runtime.batch.inputs import Input
    from sertone.schema import Prediction

NO_TIMELINE = TimelineOptions()
STDIN = "-"


@app.command(group=USE)
def predict(
    *paths: Annotated[str, Parameter(allow_leading_hyphen=True)],
    text: str | None = None,
    list_: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    manifest: Path | None = None,
    columns: str | None = None,
    out: Path | None = None,
    resume: Flag = False,
    asr: str | None = None,
    language: Annotated[str, Parameter(show_default=False)] = "",
    classes: str | None = None,
    min_confidence: float | None = None,
    dimensions: Literal["corpus", "unit"] = "corpus",
    any_sound: Flag = False,
    device: Literal["cpu", "cuda"] = "cpu",
    threads: int | None = None,
    jobs: int = 1,
    strict: Flag = False,
    long: TimelineOptions = NO_TIMELINE,
) -> int:
    """Predict the emotion of recordings: `sertone predict [MODEL] FILE...`, one row each, in the order given.

    A recording that is longer than the model takes at once is divided into windows. Its prediction is the
    mean of theirs, weighted by length. `--timeline` and the options below it add segments and speakers;
    `--to` writes the timeline to files.

    Rows are JSON objects, one per line, on stdout. With `--out` they go into a file, with progress on stderr.
    With `--to`, the names of the written files are printed instead. Without text, a model of audio and text
    predicts from the audio alone, with a warning.

    Args:
        paths: First the model: a bundle, a checkpoint folder, a run, or OWNER/NAME on the Hugging Face hub.
            Or an audio-classification model of Hugging Face, as its folder, hf:FOLDER or hf:OWNER/NAME; it is
            exported once into a cache. A run predicts with the mean of its folds' models; most of these have
            seen a recording of the training corpus in training. If the first path is a recording or a folder
            of recordings, the model that comes with Sertone predicts. Then recordings of any sampling rate
            and number of channels. A folder stands for all recordings in it and below it. `-` is a recording
            on standard input, and must be the only one.
        text: Text that is spoken in the recording; for a single recording.
        list_: Text file of recordings, instead of paths: one per line, or separated by NUL, as `find -print0`
            writes them. `-` is standard input.
        manifest: Table of recordings, instead of paths, with the columns `path` and, where they are known,
            `text` and `duration_s`.
        columns: For `--manifest`: the columns to use where names are not recognised, as in
            `path=clip,text=said`.
        out: File to write, ending in .jsonl or .csv. A file that exists is only changed with `--resume`.
        resume: Resume the file of `--out`: recordings that have a row are skipped, unless they have changed.
        asr: Name or folder of a faster-whisper model, such as `small`, that transcribes recordings without
            text.
        language: Language of the speech, for `--asr`, such as `en`. Default: detected.
        classes: Classes of the model to report: `angry,sad` leaves the others out and shares their
            probability among the rest, `happy=positive,sad=negative` renames and merges. Or a YAML file with
            a mapping.
        min_confidence: Confidence below which a prediction is unsure. Default: as the model was calibrated.
        dimensions: Scale of arousal, valence and dominance: that of the `corpus`, or from 0 to 1 (`unit`).
        any_sound: Label sounds that are no speech, too. By default noise, music or silence get no label.
        device: Device to use. `cuda` requires a GPU, and onnxruntime-gpu for a bundle.
        threads: Number of threads for one recording. Default: one per core, or one with `--jobs`.
        jobs: Number of processes that predict recordings side by side, each with its own model in memory.
            Order, rows and `--resume` do not depend on it; nor do predictions, with the same `--threads`.
        strict: Refuse recordings that would be predicted with a warning, such as a truncated file, or one
            without text for a model that uses text.
    """
    from sertone import load
    from sertone.export.bundle_cache import resolve_model_folder
    from sertone.runtime.batch import predict_many
    from sertone.sharing.model_folder import hash_model

    _require_no_option(paths)
    settings = long.to_settings()
    _require_one_output(out, resume, has_timelines=bool(settings), has_targets=bool(long.to))
    _require_asr_usable(asr, language, has_timelines=bool(settings))
    names_model = bool(paths) and _is_model(paths[0])
    inputs = _collect_inputs(paths[1:] if names_model else paths, list_, manifest, text, columns)
    targets = long.resolve_targets([source.file for source in inputs], list_, manifest)
    folder = resolve_model_folder(paths[0] if names_model else None)
    predictor = load(
        folder,
        classes=classes,
        min_confidence=min_confidence,
        dimensions=dimensions,
        any_sound=any_sound,
        device=device,
        threads=threads or (1 if jobs > 1 else None),
    )
    recogniser = _load_recogniser(asr, language, predictor.model) if asr else None
    options: dict[str, Any] = {"strict": strict, "recogniser": recogniser, "settings": settings, "jobs": jobs}
    if not out:
        return _print_predictions(predict_many.predict_inputs(predictor, inputs, **options), targets)
    counts = predict_many.write_predictions(
        predictor,
        inputs,
        out,
        resume=resume,
        model=hash_model(folder),
        recognised_by=f"{asr} {language}" if recogniser else "",
        **options,
    )
    return int(counts.count("error") > 0)


def _print_predictions(predictions: "Iterable[tuple[str, Prediction]]", targets: Sequence[str]) -> int:
    """Print each prediction, or the files of its timeline, and return the exit status."""
    from sertone.runtime.batch.prediction_progress import StatusCounts
    from sertone.runtime.batch.row_formats import format_json_line

    counts = StatusCounts()
    for _, prediction in predictions:
        reported, files = _write_timelines(prediction, targets)
        print_text("\n".join(files) or format_json_line(reported))
        counts.add(reported)
    return int(counts.count("error") > 0)


def _write_timelines(prediction: "Prediction", targets: Sequence[str]) -> "tuple[Prediction, list[str]]":
    """Write the timeline of a recording to every target.

    Returns:
        the prediction to report, an error where a file could not be written, and the files written.
    """
    from sertone.runtime.answering import build_error_prediction
    from sertone.runtime.formats.tiers import make_printable
    from sertone.runtime.formats.writers import write

    if prediction.status == "error":
        return prediction, []
    names = [expand_stem(target, prediction.file) for target in targets]
    try:
        return prediction, [make_printable(str(write(prediction, name, prediction.file))) for name in names]
    except OSError as error:  # the other recordings are still predicted
        failure = AudioError("not_written", str(error), "a place to write to")
        return build_error_prediction(prediction.file, failure), []


def _require_no_option(paths: Sequence[str]) -> None:
    """Refuse an option that does not exist: as `-` is a path, the parser takes it for one.

    Raises:
        UnknownOptionError: the same error as the parser's.
    """
    if option := next((path for path in paths if path.startswith("-") and path != STDIN), None):
        arguments = app["predict"].assemble_argument_collection()
        raise UnknownOptionError(
            token=Token(value=option, source="cli"),
            argument_collection=arguments,
            command_chain=("predict",),
            verbose=False,
        )


def _require_one_output(out: Path | None, resume: bool, *, has_timelines: bool, has_targets: bool) -> None:
    """Refuse options that would lose predictions in silence."""
    if out and has_targets:
        raise SertoneError("bad_output", "--out and --to", "one of the two: rows, or timelines")
    if out and out.suffix.lower() == ".csv" and has_timelines:
        way_out = "--out NAME.jsonl, or --to {stem}.csv for a table of segments for every recording"
        raise SertoneError("bad_output", f"--out {out} for timelines", "rows that hold segments", way_out)
    if resume and not out:
        raise SertoneError("no_output", "--resume without --out", "the file to resume")


def _require_asr_usable(asr: str | None, language: str, *, has_timelines: bool) -> None:
    if language and not asr:
        raise SertoneError("no_asr", "--language without --asr", "the model that transcribes the speech")
    if asr and has_timelines:
        problem = "--asr for a timeline, whose pieces are predicted from the audio alone"
        raise SertoneError("bad_timeline", problem, "one of the two")


def _is_model(name: str) -> bool:
    """Return whether a path is a model: a folder with one, or a name of neither a file nor a recording."""
    from sertone.runtime.batch.inputs import SUFFIXES, is_folder
    from sertone.sharing.model_folder import has_model

    path = Path(name)
    if name == STDIN:
        return False
    if is_folder(path):
        return has_model(path)
    try:
        return not path.exists() and path.suffix.lower() not in SUFFIXES
    except OSError:  # a name that is too long, or a folder that must not be entered
        return False


def _collect_inputs(
    paths: Sequence[str], listed: str | None, manifest: Path | None, text: str | None, columns: str | None
) -> "list[Input]":
    from sertone.files import parse_map
    from sertone.runtime.batch.inputs import collect_inputs

    if columns and not manifest:
        raise SertoneError(
            "no_table", "--columns without --manifest", "the table to which the columns belong"
        )
    column_names = parse_map(columns, "--columns") if columns else None
    if STDIN in paths:
        _require_only_input(paths, listed, manifest)
        inputs = [_load_standard_input()]
    else:
        inputs = collect_inputs(paths, listed=listed, manifest=manifest, columns=column_names)
    if text is None:
        return inputs
    if len(inputs) != 1 or not paths:
        problem = f"--text and {format_count(len(inputs), 'recording') if paths else 'a list or a table'}"
        way_out = "--manifest takes a table with a column of texts"
        raise SertoneError("many_files", problem, "one recording", way_out)
    return [replace(inputs[0], text=text)]


def _require_only_input(paths: Sequence[str], listed: str | None, manifest: Path | None) -> None:
    """Refuse standard input together with other recordings."""
    if len(paths) > 1 or listed or manifest:
        problem = f"`{STDIN}`, a recording on standard input, beside others"
        way_out = f"a file of that name is ./{STDIN}"
        raise SertoneError("many_files", problem, f"`{STDIN}` alone after the model", way_out)


def _load_standard_input() -> "Input":
    """Return the recording on standard input, read to its end; refuse a stream without an end."""
    from sertone.files import MAX_BYTES
    from sertone.runtime.batch.inputs import Input

    content = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        problem = f"standard input has more than {MAX_BYTES >> 20} MB"
        raise SertoneError("too_large", problem, "a smaller recording", "write it to a file, and name that")
    return Input(STDIN, content=content)


def _load_recogniser(name: str, language: str, model: "Model") -> Callable:
    if not model.uses_text:
        problem = f"--asr {name} for a model that uses audio only"
        raise SertoneError("text_not_read", problem, "a model that uses text")
    try:
        from sertone.recipe import AsrConfig
        from sertone.transcripts.asr import Recogniser
    except ModuleNotFoundError as error:  # pydantic: `train` installs it too, but `asr` is smaller
        raise SertoneError(
            "missing_extra", f"{error.name} is not installed", way_out=install_command("asr")
        ) from None
    return Recogniser(AsrConfig(model=name), language)
