"""A tiny Whisper with random weights, converted for the real faster-whisper; its text is random."""

import json
from pathlib import Path

import torch
from ctranslate2.converters import TransformersConverter
from faster_whisper.tokenizer import _LANGUAGE_CODES
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

SIZE, TIMESTAMPS = 2200, 1501


def _tokenizer(languages: tuple[str, ...]) -> Tokenizer:
    """Return a tokenizer: letters, made-up words, then Whisper's special tokens without timestamps."""
    special = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in languages)]
    special += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
    special += ["<|notimestamps|>"]
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = SIZE - TIMESTAMPS - len(tokens) - len(special)
    tokens += [""] + [f"Ġword{number}" for number in range(words - 1)]
    if len(languages) == 1:
        tokens[tokens.index("")] = "Ġword"  # the empty token is the mark of several languages
    made = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True) for token in special])
    return made


def write(folder: Path, scratch: Path, *, multilingual: bool = False, seed: int = 4) -> Path:
    """Write a model in the format of faster-whisper.

    Args:
        folder: to write.
        scratch: for the model before it is converted.
        multilingual: knows all of Whisper's languages, or else English only.
        seed: of its weights.
    """
    made = _tokenizer(_LANGUAGE_CODES if multilingual else ("en",))
    ids = {name: made.token_to_id(f"<|{name}|>") for name in ("endoftext", "startoftranscript")}
    config = WhisperConfig(
        vocab_size=SIZE, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=80,
        max_target_positions=448, pad_token_id=ids["endoftext"], bos_token_id=ids["endoftext"],
        eos_token_id=ids["endoftext"], decoder_start_token_id=ids["startoftranscript"], init_std=0.5,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(config)
    with torch.no_grad():
        # the end of a text is a token like others, not the zeros of padding, and comes early
        tokens = model.model.decoder.embed_tokens.weight
        tokens[ids["endoftext"]] = 1.1 * tokens[made.token_to_id("Ġword225")]
    model.generation_config.suppress_tokens, model.generation_config.begin_suppress_tokens = [], []
    model.save_pretrained(scratch)
    PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>").save_pretrained(scratch)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(scratch)
    files = ["tokenizer.json", "preprocessor_config.json"]
    TransformersConverter(str(scratch), copy_files=files).convert(str(folder))
    codes = _LANGUAGE_CODES if multilingual else ()
    about = json.loads((folder / "config.json").read_text())
    about["lang_ids"] = sorted(made.token_to_id(f"<|{code}|>") for code in codes)
    (folder / "config.json").write_text(json.dumps(about))
    return folder
