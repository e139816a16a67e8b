"""Text encoders from Hugging Face folders that the tests write, tokenizers, and padding."""

import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerFast

from sertone.errors import SertoneError
from sertone.nn import tokens
from sertone.nn.text import PretrainedTextConfig, TextArchitectureConfig, TinyTextConfig

TEXTS = ["hello there my friend", "that was it", "well, I think so: it is a lovely day, and nobody came"]
FAMILIES = ("bert", "roberta", "distilbert", "deberta-v2")


def configuration(family):
    small = {"vocab_size": 120, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    small |= {"intermediate_size": 32, "max_position_embeddings": 66}
    if family == "distilbert":
        small |= {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    if family == "deberta-v2":  # as the hub's deberta-v3 has it
        small |= {"relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm"}
        small |= {"share_att_key": True, "pos_att_type": "p2c|c2p", "position_biased_input": False}
        small |= {"type_vocab_size": 0}
    return AutoConfig.for_model(family, **small)


@pytest.fixture(scope="module")
def text_encoder(tmp_path_factory):
    """Write a tiny text encoder the way the hub serves them: text_encoder(family) -> folder."""

    def write(family, model=AutoModel):
        folder = tmp_path_factory.mktemp(family)
        torch.manual_seed(0)
        config = configuration(family)
        model.from_config(config).save_pretrained(folder)
        pad = "[PAD]" if config.pad_token_id == 0 else "[UNK]"  # RoBERTa counts positions from its padding
        tokenizer = Tokenizer.from_str(tokens.train_tokenizer(TEXTS, 100))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token=pad, model_max_length=64
        ).save_pretrained(folder)
        return folder

    return write


def load(folder):
    config = PretrainedTextConfig(source=str(folder))
    tokenizer = config.make_tokenizer([])
    return config.build(tokenizer), tokenizer


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_are_those_of_hugging_face_and_padding_changes_nothing(family, text_encoder):
    folder = text_encoder(family)
    encoder, tokenizer = load(folder)
    encoder.eval()
    theirs = AutoModel.from_pretrained(folder).eval()
    ids, counts = tokens.encode(tokenizer, [*TEXTS, None])
    actual = encoder(ids, counts)
    assert actual.shape == (4, encoder.depth + 1, ids.shape[1], encoder.width)
    for row, text in enumerate(TEXTS):
        own = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt").input_ids
        assert ids[row, : counts[row]].tolist() == own[0].tolist()
        expected = torch.stack(theirs(input_ids=own, output_hidden_states=True).hidden_states, 1)[0]
        torch.testing.assert_close(actual[row, :, : counts[row]], expected, atol=1e-5, rtol=1e-5)
        assert not actual[row, :, counts[row] :].any()
    assert counts[3] == 0 and not actual[3].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_masked_language_model_is_loaded_as_an_encoder_and_described_without_weights(family, text_encoder):
    """The hub's files are of pre-training: prefixed names, a language head, and no pooler."""
    encoder, tokenizer = load(text_encoder(family, AutoModelForMaskedLM))
    again = TextArchitectureConfig(**encoder.describe()).build(tokenizer)
    again.load_state_dict(encoder.state_dict())
    ids, counts = tokens.encode(tokenizer, TEXTS)
    assert torch.equal(again.eval()(ids, counts), encoder.eval()(ids, counts))
    assert not any("pooler" in name for name in encoder.state_dict())
    assert encoder.get_submodule(encoder.embeddings) is encoder.model.embeddings


def test_missing_weights_are_named(text_encoder):
    folder = text_encoder("distilbert")
    weights = load_file(folder / "model.safetensors")
    gone = next(name for name in weights if "attention" in name)
    save_file({n: t for n, t in weights.items() if n != gone}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SertoneError, match="lacks 1 weights") as caught:
        load(folder)
    assert caught.value.code == "missing_weights"


def test_what_is_no_text_encoder_is_refused(text_encoder, tiny_encoder, tmp_path):
    with pytest.raises(SertoneError, match="no encoder") as caught:
        load(tmp_path)
    assert caught.value.code == "missing_encoder"
    AutoConfig.for_model("bert").save_pretrained(tmp_path)
    with pytest.raises(SertoneError, match="no tokenizer") as caught:
        load(tmp_path)
    assert caught.value.code == "missing_tokenizer"
    own = tokens.train_tokenizer(TEXTS, 100)
    with pytest.raises(SertoneError, match="wav2vec2") as caught:
        PretrainedTextConfig(source=str(tiny_encoder())).build(own)
    assert caught.value.code == "unknown_encoder"
    with pytest.raises(SertoneError, match="entries") as caught:
        PretrainedTextConfig(source=str(text_encoder("bert"))).build(
            tokens.train_tokenizer(_many_words(), 400)
        )
    assert caught.value.code == "other_tokenizer"


def _many_words():
    return [" ".join(f"{a}{b}{c}" for c in "aeiou") for a in "bcdfghjk" for b in "lmnprstv"]


def test_a_sentencepiece_model_as_deberta_v3_ships_it(text_encoder, tmp_path):
    """`spm.model` and no tokenizer.json: converted on loading."""
    import sentencepiece

    (tmp_path / "texts").write_text("\n".join(TEXTS * 20))
    marks = {"pad": "[PAD]", "bos": "[CLS]", "eos": "[SEP]", "unk": "[UNK]"}
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "texts"),
        model_prefix=str(tmp_path / "spm"),
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        user_defined_symbols=["[MASK]"],
        **{f"{name}_piece": piece for name, piece in marks.items()},
        **{f"{name}_id": number for number, name in enumerate(marks)},
    )
    folder = text_encoder("deberta-v2")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    shutil.copy(tmp_path / "spm.model", folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "vocab_type": "spm"}))
    encoder, tokenizer = load(folder)
    ids, counts = tokens.encode(tokenizer, TEXTS)
    expected = AutoTokenizer.from_pretrained(folder)(TEXTS[0]).input_ids
    assert ids[0, : counts[0]].tolist() == expected
    assert encoder.eval()(ids, counts).isfinite().all()


def test_the_tokenizer_is_the_same_from_the_same_texts():
    first, second = tokens.train_tokenizer(TEXTS, 200), tokens.train_tokenizer(TEXTS, 200)
    assert first == second != tokens.train_tokenizer(TEXTS[:1], 200)
    with pytest.raises(SertoneError, match=r"tokenizer\.json"):
        tokens.parse_tokenizer("{}")


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=30)), min_size=1, max_size=5))
def test_any_text_gives_tokens_and_none_gives_no_token(texts):
    tokenizer = tokens.train_tokenizer(TEXTS, 100)
    ids, counts = tokens.encode(tokenizer, texts)
    assert ids.shape[0] == len(texts) and ids.shape[1] >= 1
    for row, text in enumerate(texts):
        alone, count = tokens.encode(tokenizer, [text])
        assert count[0] == counts[row] and alone[0, : count[0]].tolist() == ids[row, : count[0]].tolist()
        assert (count[0] == 0) if text is None else True
        assert not ids[row, counts[row] :].any() or counts[row] == 0, "the padding is entry 0"


def test_long_texts_are_truncated_and_reported():
    tokenizer = tokens.train_tokenizer(TEXTS, 100)
    long = " ".join(["friend"] * 2000)
    ids, counts = tokens.encode(tokenizer, [long])
    assert ids.shape == (1, tokens.LONGEST) and counts.tolist() == [tokens.LONGEST]
    assert tokens.is_truncated(tokenizer, long) and not tokens.is_truncated(tokenizer, TEXTS[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_no_text_is_longer_than_an_encoder_has_positions(family, text_encoder):
    """Also where the tokenizer sets no limit, as older ones on the hub."""
    folder = text_encoder(family)
    about = json.loads((folder / "tokenizer_config.json").read_text())
    about.pop("model_max_length")
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    encoder, tokenizer = load(folder)
    ids, counts = tokens.encode(tokenizer, ["friend " * 300])
    assert counts[0] == (64 if family == "roberta" else 66)
    assert encoder.eval()(ids, counts).isfinite().all()


def test_tiny_learns_its_subwords_from_the_training_texts():
    config = TinyTextConfig(width=16, attention_heads=2, subwords=100)
    encoder = config.build(config.make_tokenizer(TEXTS))
    assert (encoder.width, encoder.depth) == (16, 2)
    words = tokens.parse_tokenizer(config.make_tokenizer(TEXTS * 5)).encode("there lovely").tokens
    assert words[1:-1] != list("therelovely"), "frequent words are not spelled letter by letter"


@pytest.mark.parametrize("part", ["special_tokens", "single"])
def test_a_tokenizer_that_would_panic_at_its_first_text_is_refused(part):
    """The library parses a tokenizer whose parts do not fit, and then ends the thread that uses it."""
    values = json.loads(tokens.train_tokenizer(["well then", "so it is"], 60))
    values["post_processor"][part] = {} if part == "special_tokens" else "x"
    with pytest.raises(SertoneError) as caught:
        tokens.parse_tokenizer(json.dumps(values))
    assert caught.value.code == "bad_tokenizer"
