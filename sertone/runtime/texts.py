"""The text of a recording: the part that a model uses, and the warnings about it."""

from sertone.errors import AudioError
from sertone.labels import has_words
from sertone.runtime.answering import Model

NO_TEXT = "predicted from the audio alone: there is no text, or no word in it"


def select_text(model: Model, text: str | None) -> tuple[str | None, dict[str, str]]:
    """Return the text that a model uses, and warnings about it (code -> message).

    Raises:
        AudioError: `no_text`.
    """
    if not model.uses_text and text:
        return None, {"text_not_read": "the model uses only audio; the text has no effect"}
    if not model.uses_text:
        return None, {}
    if text is None or not has_words(text):
        require_audio_input(model)
        return None, {"no_text": NO_TEXT}
    if model.truncates(text):
        return text, {"text_truncated": "the text is longer than the model uses; its end is left out"}
    return text, {}


def collect_window_warnings(model: Model, text: str | None) -> dict[str, str]:
    """Return warnings about the text of a recording that is predicted by windows."""
    if model.uses_text and text and has_words(text):
        message = "the text cannot be divided among windows: predicted from the audio alone"
        return {"text_not_divided": message}
    _, warnings = select_text(model, None if model.uses_text else text)
    return warnings


def require_audio_input(model: Model) -> None:
    """Refuse a model of text alone where there is no text.

    Raises:
        AudioError: `no_text`.
    """
    if not model.uses_audio:
        problem = "no text, or no word in it, for a model that uses only text"
        raise AudioError("no_text", problem, "a transcript")
