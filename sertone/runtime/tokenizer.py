"""Load a Hugging Face tokenizer from its JSON, and try it before use.

The library loads a tokenizer whose parts do not fit together without complaint. Its first text then ends the
call with a panic, which is no `Exception`.
"""

from typing import Any

from sertone.errors import first_line

TRIALS = ("well then", "", "It is SO, isn't it? " * 200)
"""Texts that a tokenizer must encode; the last one is longer than any encoder uses."""


def parse_tokenizer(text: str) -> Any:
    """Return the tokenizer.

    Raises:
        ValueError: the text is no tokenizer, or one that cannot be used.
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
