"""The records that cross rooms: an utterance, a problem found with one, an answer about one."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from sertone.errors import SertoneError


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """One stretch of speech by one speaker, with what is known about it.

    Attributes:
        id: unique within its corpus.
        path: audio file.
        speaker: unique within its corpus; never shared by two people.
        labels: what the corpus says, by task: `emotion` (a name of `labels.EMOTIONS`, or the
            user's own), `raw_emotion` (the corpus's word for it), `gender`, `style`, and ratings
            such as `valence` on the corpus's own scale. A task without a label is absent.
        votes: emotion -> share of the annotators who heard it; adds up to 1, or empty where the
            corpus does not say. Names as in `labels`.
        text: transcript, or None.
        session: recording session, or None.
        split: `train`, `validation` or `test` where the corpus has official partitions.
        start_s: where the utterance starts in its file, in seconds.
        end_s: where it ends, in seconds; None for the end of the file.
        known_speaker: False where the corpus does not say who speaks. Then `speaker` is a name of this
            utterance's own: folds treat it as a person of its own, heads of speakers do not learn it.
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
        severity: `error` where it would change a result, else `note`.
    """

    code: str
    path: str
    message: str
    severity: Literal["error", "note"] = "error"

    def to_json(self) -> dict:
        """As a JSON object."""
        return asdict(self)


ReportProblem = Callable[[Problem], None]


def raise_on_error(problem: Problem) -> None:
    """The default way to report a problem: an error ends the reading, a note does not.

    Raises:
        SertoneError: with the problem's own code.
    """
    if problem.severity == "error":
        raise SertoneError(
            problem.code,
            f"{problem.path}: {problem.message}",
            way_out="`sertone corpora check` lists every problem of the corpus",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The answer about a stretch of a recording.

    Attributes:
        start_s: where it starts in the recording, in seconds.
        end_s: where it ends, in seconds.
        speaker: who speaks; empty where nobody said.
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
    """What was heard of one speaker of a recording.

    Attributes:
        name: as in the segments.
        segments: how many.
        speech_s: seconds in all.
        seconds_by_label: label -> seconds of its segments, those that are unsure left out.
        unsure_s: seconds of segments that are unsure.
        label: the most probable class of the mean, as in `Prediction`.
        probabilities: mean over the segments, weighted by their length.
        confidence: as in `Prediction`.
        dimensions: likewise.
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
"""The first columns of a table of predictions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The answer about one recording: there is always exactly one.

    Attributes:
        file: the input as it was given.
        status: `ok`, `warning` (answered, with a reservation) or `error` (not answered).
        code: stable name of the error or of the first warning; empty when ok.
        message: in words.
        duration_s: length of the recording in seconds, None where it could not be read.
        label: the most probable class, None on error, of silence, or where the model answers no classes.
        probabilities: by class, calibrated where the model was; empty where there is no label.
        confidence: probability of the label, None where there is none.
        unsure: whether the confidence is too low for the coverage that was wanted; the label stays.
        dimensions: arousal, valence, dominance on the scale of the corpus that the model learnt them from,
            which `scales` of the predictor states (None: it is not known); empty on error, of silence, or
            where the model answers none.
        text: what the model read beside the audio, None where it read nothing.
        segments: of a recording that was answered in pieces; its own answer is their mean, weighted by their
            length; those of silence have no answer.
        speakers: of these segments.
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
        """As a JSON object."""
        return asdict(self)

    def to_row(self) -> dict[str, str | float | bool | None]:
        """Return flat columns, as a CSV file has them: `p_NAME` of each class, dimensions by their names.

        Segments and speakers are left out. An error has no columns of classes and dimensions.
        """
        fixed = {name: getattr(self, name) for name in COLUMNS}
        shares = {f"p_{name}": share for name, share in self.probabilities.items()}
        return fixed | shares | self.dimensions | {"text": self.text}
