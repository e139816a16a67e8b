"""A tokenizer of Hugging Face from its JSON, tried out before it is used.

A tokenizer whose parts do not fit each other is read without complaint, and ends the call in which it meets
its first text with a panic, which is no `Exception`.
"""

from typing import Any

from sertone.errors import first_line

TRIALS = ("well then", "", "It is SO, isn't it? " * 200)
"""Texts that a tokenizer has to get through; the last is longer than any encoder reads."""


def parse_tokenizer(text: str) -> Any:
    """Return the tokenizer.

    Raises:
        ValueError: it is none, or cannot be used.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(text)
        for trial in TRIALS:
            tokenizer.encode(trial)
        tokenizer.encode_batch(list(TRIALS))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # plain exceptions of the library, and its panics
        raise ValueError(first_line(error)) from None
    return tokenizer
