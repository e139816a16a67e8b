"""The records that all parts share: an utterance, a problem of a corpus, a prediction."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from sertone.errors import SertoneError


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """One span of speech by one speaker, with its labels.

    Attributes:
        id: unique within its corpus.
        path: audio file.
        speaker: unique within its corpus; never shared by two people.
        labels: task -> label: `emotion` (a name of `labels.EMOTIONS` or of your own), `raw_emotion` (the
            corpus's word for it), `gender`, `style`, and ratings such as `valence` on the corpus's own
            scale. A task without a label is absent.
        votes: emotion -> share of the annotators who chose it. Shares add up to 1; empty if the corpus has no
            votes. Names as in `labels`.
        text: transcript, or None.
        session: recording session, or None.
        split: `train`, `validation` or `test` if the corpus has official partitions.
        start_s: start of the utterance in its file, in seconds.
        end_s: end of the utterance, in seconds; None for the end of the file.
        known_speaker: False if the corpus does not name the speaker. Then `speaker` is a unique name: folds
            treat the utterance as a separate person, and speaker heads do not learn from it.
    """

    id: str
    path: Path
    speaker: str
    labels: dict[str, str | float] = field(default_factory=dict)
    votes: dict[str, float] = field(default_factory=dict)
    text: str | None = None
    session: str | None = None
    split: str | None = None
    start_s: float = 0.0
    end_s: float | None = None
    known_speaker: bool = True


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a corpus.

    Attributes:
        code: stable short name.
        path: the file or utterance concerned.
        message: what was found and what was expected.
        severity: `error` if the problem could change a result, else `note`.
    """

    code: str
    path: str
    message: str
    severity: Literal["error", "note"] = "error"

    def to_json(self) -> dict:
        """Return the problem as a JSON object."""
        return asdict(self)


ReportProblem = Callable[[Problem], None]


def raise_on_error(problem: Problem) -> None:
    """Raise a problem of severity `error`, and ignore a note; the default way to report problems.

    Raises:
        SertoneError: the code is that of the problem.
    """
    if problem.severity == "error":
        raise SertoneError(
            problem.code,
            f"{problem.path}: {problem.message}",
            way_out="`sertone corpora check` lists every problem of the corpus",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The prediction for a span of a recording.

    Attributes:
        start_s: start in the recording, in seconds.
        end_s: end in the recording, in seconds.
        speaker: name of the speaker; empty if unknown.
        label: as in `Prediction`.
        probabilities: as in `Prediction`.
        confidence: as in `Prediction`.
        unsure: as in `Prediction`.
        dimensions: as in `Prediction`.
    """

    start_s: float
    end_s: float
    speaker: str = ""
    label: str | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    confidence: float | None = None
    unsure: bool = False
    dimensions: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """The summary of one speaker of a recording.

    Attributes:
        name: as in the segments.
        segments: number of segments.
        speech_s: total length of the segments, in seconds.
        seconds_by_label: label -> seconds of its segments, without unsure segments.
        unsure_s: seconds of unsure segments.
        label: the most probable class of the mean, as in `Prediction`.
        probabilities: mean over the segments, weighted by their length.
        confidence: as in `Prediction`.
        dimensions: mean over the segments, weighted by their length.
    """

    name: str
    segments: int
    speech_s: float
    seconds_by_label: dict[str, float] = field(default_factory=dict)
    unsure_s: float = 0.0
    label: str | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    confidence: float | None = None
    dimensions: dict[str, float] = field(default_factory=dict)


COLUMNS = ("file", "status", "code", "message", "duration_s", "label", "confidence", "unsure")
"""First columns of a table of predictions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The prediction for one recording; every recording has exactly one.

    Attributes:
        file: the input as it was given.
        status: `ok`, `warning` (predicted, but doubtful) or `error` (not predicted).
        code: stable name of the error or of the first warning; empty if the status is `ok`.
        message: the error or the warnings as text.
        duration_s: length of the recording in seconds, None if it could not be read.
        label: the most probable class; None after an error, for silence, or if the model predicts no classes.
        probabilities: class -> probability, calibrated if the model is; empty without a label.
        confidence: probability of the label; None without a label.
        unsure: whether the confidence is too low for the wanted coverage; the label stays.
        dimensions: arousal, valence and dominance on the scale of the training corpus, which the predictor's
            `scales` gives (None: unknown). Empty after an error, for silence, or if the model predicts none.
        text: the text that the model used, None if it used none.
        segments: predictions of the segments, if the recording was predicted in pieces. The prediction of the
            whole recording is their mean, weighted by length; segments of silence have no prediction.
        speakers: summaries of the speakers of these segments.
    """

    file: str
    status: Literal["ok", "warning", "error"]
    code: str = ""
    message: str = ""
    duration_s: float | None = None
    label: str | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    confidence: float | None = None
    unsure: bool = False
    dimensions: dict[str, float] = field(default_factory=dict)
    text: str | None = None
    segments: list[Segment] = field(default_factory=list)
    speakers: list[Speaker] = field(default_factory=list)

    def to_json(self) -> dict:
        """Return the prediction as a JSON object."""
        return asdict(self)

    def to_row(self) -> dict[str, str | float | bool | None]:
        """Return flat columns for a CSV file: `p_NAME` for each class, and dimensions by their names.

        Segments and speakers are left out. An error has no columns of classes and dimensions.
        """
        fixed = {name: getattr(self, name) for name in COLUMNS}
        probabilities = {f"p_{name}": value for name, value in self.probabilities.items()}
        return fixed | probabilities | self.dimensions | {"text": self.text}
