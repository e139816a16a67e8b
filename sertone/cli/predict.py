"""`sertone predict`: emotions of recordings."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, Token, UnknownOptionError

from sertone.cli.common import USE, Flag, app
from sertone.cli.timeline_options import TimelineOptions, expand_stem
from sertone.errors import AudioError, SertoneError
from sertone.scoring.display import format_count
from sertone.utils.extras import install_command
from sertone.utils.terminal import print_text

if TYPE_CHECKING:
    from sertone.runtime.answering import Model
    from sertone.runtime.batch.inputs import Input
    from sertone.schema import Prediction

WHOLE = TimelineOptions()
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
    language: str = "",
    classes: str | None = None,
    min_confidence: float | None = None,
    dimensions: Literal["corpus", "unit"] = "corpus",
    device: Literal["cpu", "cuda"] = "cpu",
    threads: int | None = None,
    jobs: int = 1,
    strict: Flag = False,
    long: TimelineOptions = WHOLE,
) -> int:
    """Predict recordings: `sertone predict [MODEL] FILE...`, one row each, in the order given.

    A recording longer than the model answers at once is answered by windows, whose mean is its answer; with
    `--timeline` and its kind there are segments and speakers too, and `--to` writes and draws them.

    Rows are JSON objects, one per line, on stdout; with `--out` they go into a file, with progress on stderr.
    A model of audio and text answers from the audio alone where there is no text, and says so.

    Args:
        paths: first the model: a bundle, a checkpoint folder, a run, or OWNER/NAME on the Hugging Face hub;
            if the first path is a recording or a folder of recordings, the model that comes with Sertone
            answers. A run answers with the mean of its folds' models, most of which were trained on a
            recording that belongs to the corpus. A folder of Hugging Face, hf:FOLDER or hf:OWNER/NAME is
            exported once into a cache. Then recordings of any rate and number of channels; of a folder all
            that are in it or below it; `-` is a recording on standard input, and stands alone.
        text: what is said in the one recording given.
        list_: instead of recordings, a text file with one path per line, or one per NUL as of `find -print0`;
            `-`: standard input.
        manifest: instead of recordings, a table with the columns `path` and, where they are known, `text` and
            `duration_s`.
        columns: of that table, which column is which, where its name is not recognised:
            `path=clip,text=said`.
        out: file to write, ending in .jsonl or .csv; one that is there is only touched with `--resume`.
        resume: go on with the file that `--out` names: what has a row there is not answered again, unless the
            recording has changed.
        asr: name or folder of a faster-whisper model, such as `small`, that writes down what is said where no
            text is given.
        language: of the speech, for the ASR, such as `en`; detected if not given.
        classes: classes to tell, of those of the model: `angry,sad` leaves the others out and shares their
            probability among the rest, `happy=positive,sad=negative` renames and merges. Or a YAML file with
            a mapping.
        min_confidence: below it an answer is unsure; as the model was calibrated if not given.
        dimensions: arousal, valence, dominance on the scale of the `corpus`, or from 0 to 1 (`unit`).
        device: `cuda` needs a card, and onnxruntime-gpu for a bundle.
        threads: for one recording; one per core if not given, or one with `--jobs`.
        jobs: processes that answer recordings side by side, each with a model of its own in memory. Order,
            rows and `--resume` do not depend on it; answers do not either with the same `--threads`.
        strict: refuse what would be answered with a warning, such as a truncated file, or one without text of
            a model that reads.
    """
    from sertone import load
    from sertone.export.bundle_cache import resolve_model_folder
    from sertone.runtime.batch import predict_many
    from sertone.runtime.batch.prediction_progress import StatusCounts
    from sertone.runtime.batch.row_formats import format_json_line
    from sertone.sharing.model_folder import hash_model

    _require_no_option(paths)
    settings = long.to_settings()
    _require_one_output(out, resume, timelines=bool(settings), drawn=bool(long.to))
    if language and not asr:
        raise SertoneError("no_asr", "--language without --asr", "the model that writes down what is said")
    if asr and settings:
        raise SertoneError("bad_timeline", "--asr for a timeline", "one of the two: pieces are only heard")
    own = not paths or not _is_model(paths[0])
    inputs = _inputs(paths if own else paths[1:], list_, manifest, text, columns)
    targets = long.resolve_targets([source.file for source in inputs], list_, manifest)
    told: dict[str, Any] = {"classes": classes, "min_confidence": min_confidence, "dimensions": dimensions}
    model = resolve_model_folder(None if own else paths[0])
    predictor = load(model, device=device, threads=threads or (1 if jobs > 1 else None), **told)
    recogniser = _load_recogniser(asr, language, predictor.model) if asr else None
    options: dict[str, Any] = {"strict": strict, "recogniser": recogniser, "settings": settings, "jobs": jobs}
    if out:
        by = {"model": hash_model(model), "recognised_by": f"{asr} {language}" if recogniser else ""}
        return int(
            predict_many.write_predictions(predictor, inputs, out, resume=resume, **by, **options).count(
                "error"
            )
            > 0
        )
    tally = StatusCounts()
    for _, prediction in predict_many.predict_inputs(predictor, inputs, **options):
        answer, written = _written(prediction, targets)
        print_text("\n".join(written) or format_json_line(answer))
        tally.add(answer)
    return int(tally.count("error") > 0)


def _require_no_option(paths: Sequence[str]) -> None:
    """Refuse an option that does not exist: as `-` is a path, the parser takes it for one.

    Raises:
        UnknownOptionError: as the parser itself would.
    """
    if wrong := next((path for path in paths if path.startswith("-") and path != STDIN), None):
        known = app["predict"].assemble_argument_collection()
        token = Token(value=wrong, source="cli")
        raise UnknownOptionError(
            token=token, argument_collection=known, command_chain=("predict",), verbose=False
        )


def _require_one_output(out: Path | None, resume: bool, *, timelines: bool, drawn: bool) -> None:
    """Refuses what would lose answers without a word."""
    if out and drawn:
        raise SertoneError("bad_output", "--out and --to", "one of the two: rows, or timelines")
    if out and out.suffix.lower() == ".csv" and timelines:
        way_out = "--out NAME.jsonl, or --to {stem}.csv for a table of segments for every recording"
        raise SertoneError("bad_output", f"--out {out} for timelines", "rows that hold segments", way_out)
    if resume and not out:
        raise SertoneError("no_output", "--resume without --out", "the file to go on with")


def _written(prediction: "Prediction", targets: Sequence[str]) -> "tuple[Prediction, list[str]]":
    """Writes the timeline of a recording: what is to be told, and the files; none where there is an error."""
    from sertone.runtime.answering import build_error_prediction
    from sertone.runtime.formats.tiers import make_printable
    from sertone.runtime.formats.writers import write

    if prediction.status == "error":
        return prediction, []
    names = [expand_stem(target, prediction.file) for target in targets]
    try:
        return prediction, [make_printable(str(write(prediction, name, prediction.file))) for name in names]
    except OSError as error:  # one recording never ends a run
        return build_error_prediction(
            prediction.file, AudioError("not_written", str(error), "a place to write to")
        ), []


def _is_model(name: str) -> bool:
    """Whether a path means a model: a folder that holds one, or what is neither here nor a recording."""
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


def _inputs(
    paths: Sequence[str], listed: str | None, manifest: Path | None, text: str | None, columns: str | None
) -> "list[Input]":
    from sertone.labels import parse_map
    from sertone.runtime.batch.inputs import collect_inputs

    if columns and not manifest:
        raise SertoneError("no_table", "--columns without --manifest", "the table whose columns they are")
    named = parse_map(columns, "--columns") if columns else None
    if STDIN in paths:
        _require_alone(paths, listed, manifest)
        inputs = [_standard_input()]
    else:
        inputs = collect_inputs(paths, listed=listed, manifest=manifest, columns=named)
    if text is None:
        return inputs
    if len(inputs) != 1 or not paths:
        found = f"--text and {format_count(len(inputs), 'recording') if paths else 'a list or a table'}"
        raise SertoneError(
            "many_files", found, "one recording", "--manifest takes a table with a column of texts"
        )
    return [replace(inputs[0], text=text)]


def _require_alone(paths: Sequence[str], listed: str | None, manifest: Path | None) -> None:
    """Refuse standard input among other recordings."""
    if len(paths) > 1 or listed or manifest:
        found = f"`{STDIN}`, a recording on standard input, beside others"
        way_out = f"a file of that name is ./{STDIN}"
        raise SertoneError("many_files", found, f"`{STDIN}` alone after the model", way_out)


def _standard_input() -> "Input":
    """Return the recording on standard input, read to its end; a stream without an end is refused."""
    from sertone.files import MAX_BYTES
    from sertone.runtime.batch.inputs import Input

    content = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        found = f"standard input has more than {MAX_BYTES >> 20} MB"
        raise SertoneError("too_large", found, "a smaller recording", "write it to a file, and name that")
    return Input(STDIN, content=content)


def _load_recogniser(name: str, language: str, model: "Model") -> Callable:
    if not model.uses_text:
        raise SertoneError("text_not_read", f"--asr {name} for a model that only hears", "a model that reads")
    try:
        from sertone.recipe import AsrConfig
        from sertone.transcripts.asr import Recogniser
    except ModuleNotFoundError as error:  # pydantic, which comes with `train` too: `asr` is smaller
        raise SertoneError(
            "missing_extra", f"{error.name} is not installed", way_out=install_command("asr")
        ) from None
    return Recogniser(AsrConfig(model=name), language)
