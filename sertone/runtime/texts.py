"""The text beside a recording: what of it a model reads, and what there is to say about it."""

from sertone.errors import AudioError
from sertone.labels import has_words
from sertone.runtime.answering import Model

UNREAD = "answered from the audio alone: no text, or none with a word in it"


def select_text(model: Model, text: str | None) -> tuple[str | None, dict[str, str]]:
    """Return the text that a model reads, and warnings about it (code -> message).

    Raises:
        AudioError: `no_text`.
    """
    if not model.uses_text and text:
        return None, {"text_not_read": "the model hears only; the text made no difference"}
    if not model.uses_text:
        return None, {}
    if text is None or not has_words(text):
        require_audio_input(model)
        return None, {"no_text": UNREAD}
    if model.truncates(text):
        return text, {"text_truncated": "the text is longer than the model reads; its end was left out"}
    return text, {}


def collect_window_warnings(model: Model, text: str | None) -> dict[str, str]:
    """Return warnings about the text of a recording that is answered by windows."""
    if not (model.uses_text and text and has_words(text)):
        return select_text(model, None if model.uses_text else text)[1]
    found = "the text cannot be divided among windows: answered from the audio alone"
    return {"text_not_divided": found}


def require_audio_input(model: Model) -> None:
    """Refuse to answer by a model that only reads where there is no text.

    Raises:
        AudioError: `no_text`.
    """
    if not model.uses_audio:
        found = "no text, or none with a word in it, and the model only reads"
        raise AudioError("no_text", found, "what is said")
