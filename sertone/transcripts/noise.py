"""Texts with word errors at a given rate, to test how a model depends on the quality of transcripts."""

import re
from collections.abc import Iterable, Sequence
from random import Random

from sertone.errors import SertoneError
from sertone.labels import normalise_transcript

WORD = re.compile(r"\[[^\]]*\]|(?:[^\W_]|['’])+")
"""A tag such as [LAUGHTER], or a word as `normalise_transcript` finds them."""


def list_words(texts: Iterable[str]) -> list[str]:
    """Return the different words of texts, sorted."""
    return sorted({word for text in texts for word in normalise_transcript(text).split()})


def add_word_errors(text: str, rate: float, words: Sequence[str], seed: int) -> str:
    """Replace words of a text at random: each word with the same probability, by another word.

    Nothing is deleted or inserted, and the rest of the text stays as it is. So over many texts the word error
    rate is `rate`. It can be lower where several replaced words in a row happen to fit when shifted.

    Args:
        text: a transcript.
        rate: probability that a word is replaced, 0 to 1.
        words: words to draw from, such as `list_words` returns for a corpus: lower case, one word each.
        seed: the same seed and text give the same errors.

    Raises:
        SertoneError: `bad_error_rate`, `too_few_words`.
    """
    if not 0 <= rate <= 1:
        raise SertoneError("bad_error_rate", f"a word error rate of {rate}", "0 to 1")
    if len(set(words)) < 2:
        raise SertoneError("too_few_words", f"{len(set(words))} different words", "at least two to draw from")
    rng = Random(f"{seed} {text}")  # every text has its own errors, in any order of the texts

    def replace(match: re.Match) -> str:
        word = normalise_transcript(match[0])
        # A tag has no spoken word, and stays.
        return _draw_other(word, words, rng) if word and rng.random() < rate else match[0]

    return WORD.sub(replace, text)


def _draw_other(word: str, words: Sequence[str], rng: Random) -> str:
    """Draw a word that is not the given one."""
    while (drawn := rng.choice(words)) == word:
        pass
    return drawn
