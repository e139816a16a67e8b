"""A cache of recognised texts: one small file per utterance, named by everything that the text depends on.

A second run, another fold or another study finds the texts and loads no model. A file is written completely
or not at all, and the text of a damaged one is recognised again. Only one process recognises at a time.
Others wait for it and find what it has written.
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
from sertone.transcripts.asr import Recogniser, get_versions, identify_model
from sertone.utils.processes import ChildDiedError, ChildProcess
from sertone.utils.wording import format_count

PROGRESS_LINES = 20
"""Lines of progress while a corpus is recognised."""


class TranscriptCache:
    """The texts that one model, with its settings, has recognised.

    Args:
        config: the model and how it runs.
        language: language of the corpus, ISO 639-1; empty where its data sheet does not state it.

    Attributes:
        about: what the texts depend on besides the recordings, as JSON.

    Raises:
        SertoneError: `missing_extra`.
    """

    def __init__(self, config: AsrConfig, language: str = "") -> None:
        self.config = config
        self.language = language
        self.folder = Path(config.folder).expanduser()
        settings = config.model_dump(mode="json", exclude={"model", "language", "folder"})
        spoken = config.language or language or "detected"
        self.about: dict[str, Any] = identify_model(config.model) | {"language": spoken} | settings
        self.about["versions"] = get_versions()

    def transcribe(
        self, utterances: Sequence[Utterance], hashes: Mapping[str, str], say: Callable[[str], None]
    ) -> tuple[dict[str, str | None], dict[str, list[str]]]:
        """Return the text of each utterance, from the cache or recognised now.

        Args:
            utterances: utterances to transcribe.
            hashes: utterance id -> hash of its recording.
            say: receives lines about the progress.

        Returns:
            utterance id -> text, None where its audio cannot be read; code -> ids of those utterances.

        Raises:
            SertoneError: as `Recogniser`.
        """
        paths = {u.id: self._make_path(u, hashes[u.id]) for u in utterances}
        texts = {u.id: _load_text(paths[u.id]) for u in utterances}
        failed: dict[str, list[str]] = {}
        if pending := [u for u in utterances if texts[u.id] is None]:
            with self._lock():
                failed = self._recognise(pending, paths, say)
            texts |= {u.id: _load_text(paths[u.id]) for u in pending}
        return texts, failed

    def _make_path(self, utterance: Utterance, file_hash: str) -> Path:
        """Return the path of the file that holds an utterance's text."""
        span = [utterance.start_s, utterance.end_s]
        # The hash of the recording and not its path: a corpus that has moved keeps its texts.
        key = json.dumps([file_hash, span, self.about], sort_keys=True)
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.json"

    def _recognise(
        self, utterances: Sequence[Utterance], paths: Mapping[str, Path], say: Callable[[str], None]
    ) -> dict[str, list[str]]:
        """Recognise and write the texts; return code -> ids of utterances whose audio cannot be read."""
        # Another process may have written some texts while this one waited for the lock.
        pending = [u for u in utterances if _load_text(paths[u.id]) is None]
        failed: dict[str, list[str]] = defaultdict(list)
        recogniser = None
        for count, (utterance, samples) in enumerate(_load_samples(pending), 1):
            if isinstance(samples, AudioError):
                failed[samples.code].append(utterance.id)
            else:
                # The model is loaded only when it is needed.
                recogniser = recogniser or Recogniser(self.config, self.language)
                _save_text(paths[utterance.id], recogniser(samples))
            if count % max(1, len(pending) // PROGRESS_LINES) == 0:
                progress = f"{count} of {format_count(len(pending), 'recording')}"
                say(f"speech recognition with {self.about['model']}: {progress}")
        for code, ids in failed.items():
            recordings = format_count(len(ids), "recording")
            names = ids[0] + (", ..." if len(ids) > 1 else "")
            say(f"{recordings} without a transcript, {code.replace('_', ' ')}: {names}")
        return dict(failed)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Let one process recognise at a time; others wait here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _load_samples(utterances: Sequence[Utterance]) -> Iterator[tuple[Utterance, np.ndarray | AudioError]]:
    """Yield each utterance with its samples (N,), or with the error why they cannot be read.

    A child process decodes the audio, so that a crash of a decoder does not end the run.
    """
    with ChildProcess() as child:
        for utterance in utterances:
            try:
                yield utterance, child(_decode, utterance)
            except AudioError as error:
                yield utterance, error
            except ChildDiedError:
                yield utterance, AudioError("decoder_crashed", f"{utterance.path}: the decoder died")


def _decode(utterance: Utterance) -> np.ndarray:
    return audio.read(utterance.path, start_s=utterance.start_s, end_s=utterance.end_s).samples


def _load_text(path: Path) -> str | None:
    """Return the text in a file, or None where the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        text, checksum = content["text"], content["checksum"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return text if isinstance(text, str) and checksum == _compute_checksum(text) else None


def _save_text(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    write_json(path, {"text": text, "checksum": _compute_checksum(text)})


def _compute_checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
