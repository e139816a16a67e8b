"""Predicting many recordings: in their order, into one file that can be gone on with."""

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sertone.audio import file_hash
from sertone.runtime.batch.inputs import Input
from sertone.runtime.batch.prediction_progress import PredictionProgress, StatusCounts
from sertone.runtime.batch.resumable import Provenance, compute_stamp, open_output
from sertone.runtime.batch.row_formats import select_format
from sertone.runtime.predictor import Predictor, SpeechRecogniser
from sertone.runtime.recording_source import FileSource
from sertone.runtime.timeline.plan import TimelinePlan, TimelineSettings
from sertone.schema import Prediction
from sertone.utils.terminal import print_status


def predict_inputs(
    predictor: Predictor,
    inputs: Sequence[Input],
    *,
    strict: bool = False,
    recogniser: SpeechRecogniser | None = None,
    settings: TimelineSettings | None = None,
    alone: bool | None = None,
    jobs: int = 1,
) -> Generator[tuple[str, Prediction], None, None]:
    """Stamp, taken before the file is read, and prediction of every input.

    The arguments are those of `Predictor.predict_files`; `alone` follows from the inputs if not given.
    """
    stamps: deque[str] = deque()

    def files() -> Iterator[FileSource]:
        for source in inputs:
            stamps.append(compute_stamp(source))
            yield source.source

    made = predictor.predict_files(
        files(),
        strict=strict,
        texts=(source.text for source in inputs),
        durations=(source.duration_s for source in inputs),
        recogniser=recogniser,
        settings=settings,
        alone=len(inputs) == 1 if alone is None else alone,
        jobs=jobs,
    )
    for prediction in made:
        yield stamps.popleft(), prediction


def write_predictions(
    predictor: Predictor,
    inputs: Sequence[Input],
    out: Path,
    *,
    model: str,
    resume: bool = False,
    strict: bool = False,
    recogniser: SpeechRecogniser | None = None,
    recognised_by: str = "",
    settings: TimelineSettings | None = None,
    jobs: int = 1,
) -> StatusCounts:
    """Answers recordings into a file, with progress on stderr.

    Args:
        predictor: what answers.
        inputs: see `inputs.collect_inputs`.
        out: file to write, ending in .jsonl or .csv; beside it a journal, see `runtime.output`.
        model: what names the model, such as a hash of its files: answers of two models are not mixed.
        resume: go on with a file that is there.
        strict: as `Predictor.predict_files`.
        recogniser: likewise.
        recognised_by: what names the recogniser.
        settings: of timelines, see `Predictor.predict_files`.
        jobs: processes side by side, likewise; the rows do not depend on it.

    Returns:
        what was answered, the rows included that were there already.

    Raises:
        SertoneError: `bad_output`, and what `output.opened` raises.
    """
    if settings:
        TimelinePlan.from_settings(
            settings, predictor.model
        )  # refuses before anything is written what cannot be
    alone = len(inputs) == 1
    pieces = _settings_in_full(settings, alone) if settings else None
    chosen = {"model": model, "strict": strict, "asr": recognised_by, "timeline": pieces}
    form, by = select_format(out, predictor), _made_by(predictor, chosen)
    with open_output(out, form, by, inputs, resume=resume) as output:
        left = output.select_unfinished(inputs)
        _say(output.describe_resumption())
        progress, tally = PredictionProgress(len(left)), StatusCounts(output.finished)
        options: dict[str, Any] = {
            "recogniser": recogniser,
            "settings": settings,
            "alone": alone,
            "jobs": jobs,
        }
        answers = predict_inputs(predictor, left, strict=strict, **options)
        with closing(progress), closing(answers):
            for stamped, prediction in answers:
                output.write(stamped, prediction)
                tally.add(prediction)
                progress.add(prediction)
    _say(f"{progress.format_summary()}; {out} holds {tally}")
    return tally


def _settings_in_full(settings: TimelineSettings, alone: bool) -> dict[str, str]:
    """What decides where recordings are cut, however it was said."""
    values = asdict(settings) | {"window_s": settings.effective_window_s, "hop_s": settings.effective_hop_s}
    values["segmentation"] = "windows" if settings.uses_windows else "speech"
    if settings.rttm:
        values |= {"rttm": file_hash(settings.rttm), "alone": alone}
    return {name: str(value) for name, value in values.items()}


def _made_by(predictor: Predictor, settings: Mapping[str, Any]) -> Provenance:
    """All that decides what a row says."""
    model, answering = predictor.model, predictor.answer_format
    return dict(
        settings,
        classes=answering.names(model),
        of=answering.classes,
        scales={name: asdict(scale) if scale else None for name, scale in model.scales.items()},
        dimensions=answering.dimensions,
        min_confidence=answering.min_confidence,
    )


def _say(line: str) -> None:
    if line:
        print_status(line)
