"""Predict many recordings in order, into one resumable file."""

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sertone.audio import file_hash
from sertone.runtime.answering import AnswerFormat
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
    """Yield stamp and prediction of every input. The stamp is computed before the file is read.

    The arguments are those of `Predictor.predict_files`; `alone` follows from the inputs if not given.
    """
    stamps: deque[str] = deque()

    def iterate_files() -> Iterator[FileSource]:
        for source in inputs:
            # If the file changes while it is read, the old stamp leads to a new prediction at the next run.
            stamps.append(compute_stamp(source))
            yield source.source

    predictions = predictor.predict_files(
        iterate_files(),
        strict=strict,
        texts=(source.text for source in inputs),
        durations=(source.duration_s for source in inputs),
        recogniser=recogniser,
        settings=settings,
        alone=len(inputs) == 1 if alone is None else alone,
        jobs=jobs,
    )
    for prediction in predictions:
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
    """Predict recordings into a file, with progress on stderr.

    Args:
        predictor: makes the predictions.
        inputs: see `inputs.collect_inputs`.
        out: file to write, ending in .jsonl or .csv. Its journal stands beside it, see `batch.resumable`.
        model: identifies the model, such as a hash of its files: a file never mixes two models.
        resume: keep the rows of an existing file.
        strict: as for `Predictor.predict_files`.
        recogniser: as for `Predictor.predict_files`.
        recognised_by: identifies the recogniser.
        settings: settings of timelines, see `Predictor.predict_files`.
        jobs: number of processes side by side; the rows do not depend on it.

    Returns:
        the number of predictions by status and code, with the rows from before.

    Raises:
        SertoneError: `bad_output`; errors of `resumable.open_output`.
    """
    if settings:
        # Refuses impossible settings before anything is written.
        TimelinePlan.from_settings(settings, predictor.model)
    alone = len(inputs) == 1
    timeline = _describe_timeline(settings, alone) if settings else None
    options = {"model": model, "strict": strict, "asr": recognised_by, "timeline": timeline}
    provenance = _describe_provenance(predictor.answer_format, options)
    form = select_format(out, predictor.answer_format)
    with open_output(out, form, provenance, inputs, resume=resume) as output:
        unfinished = output.select_unfinished(inputs)
        _print_line(output.describe_resumption())
        progress = PredictionProgress(len(unfinished))
        counts = StatusCounts(output.finished)
        predictions = predict_inputs(
            predictor,
            unfinished,
            strict=strict,
            recogniser=recogniser,
            settings=settings,
            alone=alone,  # of all inputs, not of the unfinished ones
            jobs=jobs,
        )
        with closing(progress), closing(predictions):
            for stamp, prediction in predictions:
                output.write(stamp, prediction)
                counts.add(prediction)
                progress.add(prediction)
    _print_line(f"{progress.format_summary()}; {out} holds {counts}")
    return counts


def _describe_timeline(settings: TimelineSettings, alone: bool) -> dict[str, str]:
    """Return all settings that affect where recordings are cut, with their defaults filled in."""
    values = asdict(settings)
    values["window_s"] = settings.effective_window_s
    values["hop_s"] = settings.effective_hop_s
    values["segmentation"] = "windows" if settings.uses_windows else "speech"
    if settings.rttm:
        values |= {"rttm": file_hash(settings.rttm), "alone": alone}
    return {name: str(value) for name, value in values.items()}


def _describe_provenance(answer_format: AnswerFormat, options: Mapping[str, Any]) -> Provenance:
    """Return all that a row depends on; the keys are those of the journal."""
    scales = answer_format.model.scales.items()
    return dict(
        options,
        classes=answer_format.class_names,
        of=answer_format.class_map,
        scales={name: asdict(scale) if scale else None for name, scale in scales},
        dimensions=answer_format.dimensions,
        min_confidence=answer_format.min_confidence,
    )


def _print_line(line: str) -> None:
    if line:
        print_status(line)
