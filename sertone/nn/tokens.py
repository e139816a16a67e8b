"""Text as tokens. A tokenizer is a JSON text of Hugging Face's `tokenizers`, a file beside the weights.

It includes truncation and padding, so a checkpoint's `tokenizer.json` fully defines its input. Missing text
is a row without tokens.

Axis letters: B batch, S tokens.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from sertone.errors import SertoneError, first_line
from sertone.labels import has_words
from sertone.runtime import tokenizer as tokenizers

PAD, UNKNOWN, BEGIN, END = SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
LONGEST = 512
"""Largest number of tokens of a text; pretrained tokenizers and encoders may set a smaller one."""


def train_tokenizer(texts: Iterable[str], subwords: int) -> str:
    """Train a byte-pair encoding on a corpus's own texts (Sennrich et al. 2016, arXiv 1508.07909).

    Args:
        texts: texts of the training set.
        subwords: entries of the vocabulary, at most.

    Returns:
        the tokenizer as JSON; the same texts give the same tokenizer.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(vocab_size=subwords, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(mark, tokenizer.token_to_id(mark)) for mark in (BEGIN, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A {END}", special_tokens=ends)
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(PAD), pad_token=PAD)
    return tokenizer.to_str()


def load_pretrained_tokenizer(source: str, longest: int = LONGEST) -> str:
    """Load the tokenizer of a pretrained text encoder, as JSON.

    Args:
        source: Hugging Face id or folder.
        longest: tokens that the encoder has positions for.

    Raises:
        SertoneError: `missing_tokenizer`, `missing_encoder`, `remote_code`.
    """
    pretrained = _load(source)
    tokenizer = Tokenizer.from_str(pretrained.backend_tokenizer.to_str())
    # `model_max_length` is a huge number where the files set no limit.
    tokenizer.enable_truncation(min(pretrained.model_max_length, longest, LONGEST))
    tokenizer.enable_padding(pad_id=pretrained.pad_token_id, pad_token=pretrained.pad_token)
    return tokenizer.to_str()


def _load(source: str) -> Any:
    from sertone.nn.pretrained import load_tokenizer  # parsing a tokenizer needs no transformers

    expected = "a Hugging Face id or a folder with a tokenizer that knows how to pad"
    try:
        tokenizer = load_tokenizer(source)
    except SertoneError:
        raise
    except Exception as error:  # from missing files to a converter that is not installed: one way out
        raise SertoneError(
            "missing_tokenizer",
            f"no tokenizer at {source!r}: {first_line(error)}",
            expected,
            "without a network, download it elsewhere and give its folder; one with spm.model alone, such as "
            "DeBERTaV3, also needs sentencepiece and protobuf, which the extra `train` brings",
        ) from error
    if getattr(tokenizer, "backend_tokenizer", None) is None or tokenizer.pad_token_id is None:
        raise SertoneError("missing_tokenizer", f"{source}: {type(tokenizer).__name__}", expected)
    # Where the files are missing, transformers makes up a tokenizer of special tokens alone.
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise SertoneError("missing_tokenizer", f"no tokenizer at {source!r}: it has no word", expected)
    return tokenizer


@lru_cache(maxsize=16)
def parse_tokenizer(tokenizer: str) -> Tokenizer:
    """Parse the JSON of a tokenizer.

    Raises:
        SertoneError: `bad_tokenizer`.
    """
    try:
        return tokenizers.parse_tokenizer(tokenizer)
    except ValueError as error:
        raise SertoneError("bad_tokenizer", str(error), "a tokenizer.json of Hugging Face") from None


def encode(tokenizer: str, texts: Sequence[str | None]) -> tuple[Tensor, Tensor]:
    """Encode texts as padded tokens.

    Args:
        tokenizer: as JSON.
        texts: None, or a text without a spoken word, gives a row of padding.

    Returns:
        tokens (B, S), S at least 1, and how many of each row count, (B,).
    """
    rows = parse_tokenizer(tokenizer).encode_batch([text or "" for text in texts])
    # A text without words still has the tokens that mark beginning and end; they do not count.
    counts = [
        sum(row.attention_mask) if has_words(text) else 0 for row, text in zip(rows, texts, strict=True)
    ]
    return torch.tensor([row.ids for row in rows]), torch.tensor(counts)


def is_truncated(tokenizer: str, text: str) -> bool:
    """Return whether a text has more tokens than an encoder uses."""
    return bool(parse_tokenizer(tokenizer).encode(text).overflowing)
