"""Texts recognised once and kept: one small file per utterance, named by all that the text depends on.

A second run, another fold or another study finds them and loads no model. A file is written whole or not
at all, and one that is damaged is recognised again. Only one process recognises at a time; others wait for
it and find what it has written.
"""

import contextlib
import fcntl
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sertone import audio
from sertone.errors import AudioError
from sertone.files import write_json
from sertone.recipe import AsrConfig
from sertone.schema import Utterance
from sertone.scoring.display import format_count
from sertone.transcripts.asr import Recogniser, get_versions, identify_model
from sertone.utils.processes import ChildDiedError, ChildProcess

REPORTS = 20
"""Lines of progress while a corpus is recognised."""


class TranscriptCache:
    """The texts that one model, with its settings, has heard.

    Args:
        config: which model, and how it runs.
        language: of the corpus, ISO 639-1; empty where its data sheet does not know.

    Attributes:
        about: what the texts depend on besides the recordings, as JSON.

    Raises:
        SertoneError: `missing_extra`.
    """

    def __init__(self, config: AsrConfig, language: str = "") -> None:
        self.config, self.language = config, language
        self.folder = Path(config.folder).expanduser()
        settings = config.model_dump(mode="json", exclude={"model", "language", "folder"})
        spoken = config.language or language or "detected"
        self.about: dict[str, Any] = identify_model(config.model) | {"language": spoken} | settings
        self.about["versions"] = get_versions()

    def transcribe(
        self, utterances: Sequence[Utterance], hashes: Mapping[str, str], say: Callable[[str], None]
    ) -> tuple[dict[str, str | None], dict[str, list[str]]]:
        """What is said in each utterance.

        Args:
            utterances: to listen to.
            hashes: utterance id -> hash of its recording.
            say: told the progress.

        Returns:
            utterance id -> text, None where its audio cannot be read; code -> ids of those.

        Raises:
            SertoneError: as `Recogniser`.
        """
        paths = {u.id: self._path(u, hashes[u.id]) for u in utterances}
        found = {u.id: _kept(paths[u.id]) for u in utterances}
        failed: dict[str, list[str]] = {}
        if left := [u for u in utterances if found[u.id] is None]:
            with self._alone():
                failed = self._recognise(left, paths, say)
            found |= {u.id: _kept(paths[u.id]) for u in left}
        return found, failed

    def _path(self, utterance: Utterance, file_hash: str) -> Path:
        """Of the file that holds an utterance's text."""
        stretch = [utterance.start_s, utterance.end_s]
        key = json.dumps([file_hash, stretch, self.about], sort_keys=True)
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.json"

    def _recognise(
        self, utterances: Sequence[Utterance], paths: Mapping[str, Path], say: Callable[[str], None]
    ) -> dict[str, list[str]]:
        """Writes the texts that nobody has written meanwhile; code -> ids of what cannot be read."""
        left = [u for u in utterances if _kept(paths[u.id]) is None]
        failed: dict[str, list[str]] = defaultdict(list)
        recogniser = None
        for done, (utterance, heard) in enumerate(_heard(left), 1):
            if isinstance(heard, AudioError):
                failed[heard.code].append(utterance.id)
            else:
                recogniser = recogniser or Recogniser(self.config, self.language)
                _keep(paths[utterance.id], recogniser(heard))
            if done % max(1, len(left) // REPORTS) == 0:
                of_all = f"{done} of {format_count(len(left), 'recording')}"
                say(f"speech recognition with {self.about['model']}: {of_all}")
        for code, ids in failed.items():
            count, reason = format_count(len(ids), "recording"), code.replace("_", " ")
            say(f"{count} without a transcript, {reason}: {ids[0]}{', ...' * (len(ids) > 1)}")
        return dict(failed)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _heard(utterances: Sequence[Utterance]) -> Iterator[tuple[Utterance, np.ndarray | AudioError]]:
    """The samples of each utterance, (N,), or why they cannot be had; read where a crash does no harm."""
    with ChildProcess() as child:
        for utterance in utterances:
            try:
                yield utterance, child(_samples, utterance)
            except AudioError as error:
                yield utterance, error
            except ChildDiedError:
                yield utterance, AudioError("decoder_crashed", f"{utterance.path}: the decoder died")


def _samples(utterance: Utterance) -> np.ndarray:
    return audio.read(utterance.path, start_s=utterance.start_s, end_s=utterance.end_s).samples


def _kept(path: Path) -> str | None:
    """The text in a file, or None where there is none that is whole."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        text, checksum = kept["text"], kept["checksum"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return text if isinstance(text, str) and checksum == _checksum(text) else None


def _keep(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    write_json(path, {"text": text, "checksum": _checksum(text)})


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
