"""Text as tokens: a tokenizer is one JSON text, that of Hugging Face's `tokenizers`, beside the weights.

Truncation and padding are part of it, so a checkpoint's `tokenizer.json` says everything about its input.
Missing text is a row without tokens.

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
"""Tokens of a text where a pretrained tokenizer sets no limit."""


def train_tokenizer(texts: Iterable[str], subwords: int) -> str:
    """A byte-pair encoding of a corpus's own texts (Sennrich et al. 2016, arXiv 1508.07909).

    Args:
        texts: of the training side.
        subwords: entries of the vocabulary, at most.

    Returns:
        the tokenizer as JSON; the same texts, the same tokenizer.
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
    """The tokenizer of a pretrained text encoder, as JSON.

    Args:
        source: Hugging Face id or folder.
        longest: tokens that the encoder has positions for.

    Raises:
        SertoneError: `missing_tokenizer`, `missing_encoder`, `remote_code`.
    """
    found: Any = _load(source)
    tokenizer = Tokenizer.from_str(found.backend_tokenizer.to_str())
    tokenizer.enable_truncation(min(found.model_max_length, longest, LONGEST))
    tokenizer.enable_padding(pad_id=found.pad_token_id, pad_token=found.pad_token)
    return tokenizer.to_str()


def _load(source: str) -> Any:
    from sertone.nn.pretrained import load_tokenizer

    expected = "a Hugging Face id or a folder with a tokenizer that knows how to pad"
    try:
        found = load_tokenizer(source)
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
    if getattr(found, "backend_tokenizer", None) is None or found.pad_token_id is None:
        raise SertoneError("missing_tokenizer", f"{source}: {type(found).__name__}", expected)
    if len(found) <= len(set(found.all_special_ids)):  # made up where the files of one are missing
        raise SertoneError("missing_tokenizer", f"no tokenizer at {source!r}: it has no word", expected)
    return found


@lru_cache(maxsize=16)
def parse_tokenizer(tokenizer: str) -> Tokenizer:
    """A tokenizer from its JSON.

    Raises:
        SertoneError: `bad_tokenizer`.
    """
    try:
        return tokenizers.parse_tokenizer(tokenizer)
    except ValueError as error:
        raise SertoneError("bad_tokenizer", str(error), "a tokenizer.json of Hugging Face") from None


def encode(tokenizer: str, texts: Sequence[str | None]) -> tuple[Tensor, Tensor]:
    """Tokens of texts, padded.

    Args:
        tokenizer: as JSON.
        texts: None, or one without a spoken word, gives a row of padding.

    Returns:
        tokens (B, S), S at least 1, and how many of each row count, (B,).
    """
    rows = parse_tokenizer(tokenizer).encode_batch([text or "" for text in texts])
    pairs = zip(rows, texts, strict=True)
    counts = [sum(row.attention_mask) if has_words(text) else 0 for row, text in pairs]
    return torch.tensor([row.ids for row in rows]), torch.tensor(counts)


def is_truncated(tokenizer: str, text: str) -> bool:
    """Whether a text has more tokens than an encoder is given."""
    return bool(parse_tokenizer(tokenizer).encode(text).overflowing)
