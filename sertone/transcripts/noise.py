"""Text with errors at a known rate, to see what a model makes of worse transcripts."""

import re
from collections.abc import Iterable, Sequence
from random import Random

from sertone.errors import SertoneError
from sertone.labels import normalise_transcript

WORD = re.compile(r"\[[^\]]*\]|(?:[^\W_]|['’])+")
"""A tag such as [LAUGHTER], or a word as `spoken_text` finds them."""


def list_words(texts: Iterable[str]) -> list[str]:
    """The different words of texts, sorted."""
    return sorted({word for text in texts for word in normalise_transcript(text).split()})


def add_word_errors(text: str, rate: float, words: Sequence[str], seed: int) -> str:
    """A text in which words are replaced at random: each with the same probability, by another word.

    Nothing is left out or put in, and the rest of the text stays as it is. So over many texts the word
    error rate is `rate`, apart from rows of words that happen to fit again when shifted.

    Args:
        text: a transcript.
        rate: probability that a word is replaced, 0 to 1.
        words: to draw from, such as the `vocabulary` of a corpus: lower case, one word each.
        seed: the same seed and text, the same errors.

    Raises:
        SertoneError: `bad_error_rate`, `too_few_words`.
    """
    if not 0 <= rate <= 1:
        raise SertoneError("bad_error_rate", f"a word error rate of {rate}", "0 to 1")
    if len(set(words)) < 2:
        raise SertoneError("too_few_words", f"{len(set(words))} different words", "at least two to draw from")
    draw = Random(f"{seed} {text}")

    def replaced(found: re.Match) -> str:
        spoken = normalise_transcript(found[0])
        return _other(spoken, words, draw) if spoken and draw.random() < rate else found[0]

    return WORD.sub(replaced, text)


def _other(word: str, words: Sequence[str], draw: Random) -> str:
    """A word drawn from `words` that is not the given one."""
    while (drawn := draw.choice(words)) == word:
        pass
    return drawn
