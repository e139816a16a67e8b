"""Text encoders: tokens in, hidden states of all layers out. Padding never changes a hidden state.

Contract (B batch, S tokens, L layers, D width):
    (tokens (B, S), counts (B,)) -> hidden (B, L+1, S, D)
hidden[:, 0] are the embeddings and hidden[:, l] the output of layer l. They are zero beyond `counts`, so a
row without tokens is all zero. The settings also make the tokenizer (`nn.tokens`).
"""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig

from sertone.errors import SertoneError
from sertone.nn import tokens as tokenizers
from sertone.nn.kernels import replace_dropout
from sertone.nn.masks import frame_mask
from sertone.nn.pretrained import build_architecture, load_config, load_weights
from sertone.recipe.settings import MAX_LAYERS, Settings


class TextEncoder(nn.Module):
    """An encoder of Hugging Face, such as BERT, RoBERTa, DeBERTa or DistilBERT.

    Args:
        model: the Hugging Face model.
    """

    embeddings = "model.embeddings"
    """Name of the module that the papers freeze."""
    unused = ""
    """One line about the weights of its file that it does not use; empty where there are none."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        replace_dropout(model)
        self.model = model
        self.config = model.config
        self.width = self.config.hidden_size
        self.depth = self.config.num_hidden_layers

    def describe(self) -> dict[str, Any]:
        """Return the settings that build this architecture again, without its weights."""
        config = self.config.to_diff_dict() | {"model_type": self.config.model_type}
        return TextArchitectureConfig(config=config).model_dump()

    def forward(self, tokens: Tensor, counts: Tensor) -> Tensor:
        """Tokens (B, S), counts (B,) -> hidden (B, L+1, S, D)."""
        # Attention needs one key in every row, also in a row without tokens, which is zeroed below.
        keys = frame_mask(counts.clamp(min=1), tokens.shape[1])
        output = self.model(input_ids=tokens, attention_mask=keys.long(), output_hidden_states=True)
        mask = frame_mask(counts, tokens.shape[1])
        return torch.stack(output.hidden_states, 1) * mask[:, None, :, None]


class PretrainedTextConfig(Settings):
    """A pretrained text encoder, by hub id or folder."""

    name: Literal["pretrained"] = "pretrained"
    source: str
    """A hub id such as `microsoft/deberta-v3-large`, or a folder that `save_pretrained` wrote."""

    def make_tokenizer(self, texts: Iterable[str]) -> str:
        """Load the tokenizer of the encoder, as JSON."""
        return tokenizers.load_pretrained_tokenizer(self.source, _count_positions(load_config(self.source)))

    def build(self, tokenizer: str) -> TextEncoder:
        """Load the weights; none may be missing.

        Raises:
            SertoneError: `missing_encoder`, `unknown_encoder`, `missing_weights`, `bad_weights`,
                `other_tokenizer`.
        """
        config = load_config(self.source)
        _require_text_encoder(config, self.source)
        model, unused = load_weights(self.source, config, optional=("pooler.",))
        encoder = _wrap_model(model, self.source)
        encoder.unused = unused
        _require_fitting(tokenizer, model.config.vocab_size, self.source)
        return encoder


class TextArchitectureConfig(Settings):
    """A text encoder without weights, as a checkpoint describes a pretrained one."""

    name: Literal["architecture"] = "architecture"
    config: dict[str, Any]
    """A Hugging Face configuration."""

    def make_tokenizer(self, texts: Iterable[str]) -> str:
        """Refuse: no tokenizer is known. That of a checkpoint is a file beside its weights.

        Raises:
            SertoneError: `missing_tokenizer`.
        """
        raise SertoneError(
            "missing_tokenizer", "a bare text architecture", "model.text: {name: pretrained, source: ...}"
        )

    def build(self, tokenizer: str) -> TextEncoder:
        """Build the encoder with random weights."""
        model = build_architecture(self.config)
        return _wrap_model(model, model.config.model_type)


class TinyTextConfig(Settings):
    """A small BERT trained from scratch on subwords of the training set's texts, for tests and the demo."""

    name: Literal["tiny"] = "tiny"
    width: int = Field(default=64, ge=8)
    """The width D, a multiple of `attention_heads`."""
    depth: int = Field(default=2, ge=1, le=MAX_LAYERS)
    """The number of layers L."""
    attention_heads: int = Field(default=4, ge=1)
    """The number of attention heads of each layer."""
    subwords: int = Field(default=500, ge=50)
    """The byte-pair vocabulary has at most this many entries."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """The dropout of the encoder."""

    @model_validator(mode="after")
    def _require_even_heads(self) -> Self:
        if self.width % self.attention_heads:
            raise ValueError(f"width {self.width} is no multiple of attention_heads {self.attention_heads}")
        return self

    def make_tokenizer(self, texts: Iterable[str]) -> str:
        """Train a tokenizer on the texts, as JSON."""
        return tokenizers.train_tokenizer(texts, self.subwords)

    def build(self, tokenizer: str) -> TextEncoder:
        """Build the encoder with random weights."""
        config = AutoConfig.for_model(
            "bert",
            vocab_size=tokenizers.parse_tokenizer(tokenizer).get_vocab_size(),
            hidden_size=self.width,
            num_hidden_layers=self.depth,
            num_attention_heads=self.attention_heads,
            intermediate_size=4 * self.width,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
        )
        return _wrap_model(AutoModel.from_config(config, trust_remote_code=False), "tiny")


TextEncoderConfig = Annotated[
    TinyTextConfig | PretrainedTextConfig | TextArchitectureConfig, Field(discriminator="name")
]
"""The table of text encoders. To add one, add its settings and a line here."""


def _count_positions(config: PretrainedConfig) -> int:
    """Count the tokens that an encoder has positions for."""
    positions = getattr(config, "max_position_embeddings", tokenizers.LONGEST)
    # RoBERTa and its relatives count positions from the one behind that of the padding token.
    if re.search(r"roberta|camembert|mpnet", config.model_type):
        return positions - (config.pad_token_id + 1)
    return positions


def _wrap_model(model: Any, source: str) -> TextEncoder:
    if not hasattr(model, "embeddings"):
        raise SertoneError(
            "unknown_encoder",
            f"{source} is a {model.config.model_type}",
            "an encoder of text such as BERT, RoBERTa, DeBERTa or DistilBERT",
        )
    if hasattr(model, "pooler"):  # a layer over the first token, which no model here uses
        model.pooler = None
    return TextEncoder(model)


def _require_text_encoder(config: PretrainedConfig, source: str) -> None:
    if config.is_encoder_decoder or not hasattr(config, "vocab_size"):
        raise SertoneError(
            "unknown_encoder",
            f"{source} is a {config.model_type}",
            "an encoder of text such as BERT, RoBERTa, DeBERTa or DistilBERT",
        )


def _require_fitting(tokenizer: str, embeddings: int, source: str) -> None:
    """Refuse a tokenizer with more entries than there are embeddings: it belongs to another model."""
    entries = tokenizers.parse_tokenizer(tokenizer).get_vocab_size()
    if entries > embeddings:
        raise SertoneError(
            "other_tokenizer",
            f"{source}: the tokenizer has {entries} entries, the encoder {embeddings} embeddings",
            "the tokenizer that the encoder was trained with",
        )
