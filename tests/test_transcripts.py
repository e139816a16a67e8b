"""Sources of texts: the corpus, a column, a real Whisper with random weights, none; word errors."""

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import jiwer
import numpy as np
import pytest
import soundfile
import whisper
import yaml
from conftest import TINY_MODEL
from hypothesis import given
from hypothesis import strategies as st

from sertone import cli, corpora, transcripts
from sertone import recipe as recipes
from sertone.errors import SertoneError
from sertone.labels import normalise_transcript
from sertone.protocol import leaks
from sertone.recipe import AsrConfig, TextConfig
from sertone.schema import Utterance
from sertone.training.experiment.experiment import prepare
from sertone.transcripts.asr import Recogniser
from sertone.transcripts.noise import add_word_errors, list_words


@pytest.fixture(scope="session")
def babbler(tmp_path_factory):
    """A tiny Whisper for English only."""
    folder = tmp_path_factory.mktemp("babbler")
    return whisper.write(folder / "tiny", folder / "before")


@pytest.fixture(scope="session")
def polyglot(tmp_path_factory):
    """A tiny Whisper for many languages."""
    folder = tmp_path_factory.mktemp("polyglot")
    return whisper.write(folder / "tiny", folder / "before", multilingual=True)


def noises(folder, count=3):
    """Write different recordings; return their utterances."""
    found = []
    for number in range(count):
        path = folder / f"{number}.wav"
        soundfile.write(path, 0.1 * np.random.default_rng(number).standard_normal(16000), 16000)
        found.append(Utterance(id=f"u{number}", path=path, speaker="s", text="own"))
    return found


def load_texts(config, utterances, language="", say=lambda _: None):
    return transcripts.load_transcripts(config, utterances, leaks.hash_recordings(utterances), say, language)


def asr(model, folder, **options):
    settings = {"model": str(model), "folder": str(folder), "beam_size": 1, "compute_type": "float32"}
    return TextConfig(source="asr", asr=AsrConfig(**(settings | options)))


def test_texts_of_the_corpus_and_no_texts(tmp_path):
    own = noises(tmp_path)
    own[1] = replace(own[1], text=" [LAUGHTER] ... ")
    own[2] = replace(own[2], text=None)
    found = load_texts(TextConfig(), own)
    assert found.texts == {"u0": "own", "u1": None, "u2": None}
    assert found.card == {"source": "corpus", "with_text": 1, "without_text": 2}
    assert [u.text for u in found.attach_to(own)] == ["own", None, None]
    nothing = load_texts(TextConfig(source="none"), own)
    assert set(nothing.texts.values()) == {None}
    assert nothing.card == {"source": "none", "with_text": 0, "without_text": 3}


def test_a_column_of_a_manifest(tmp_path, tone):
    tone("a.wav")
    rows = ["path,speaker,emotion,valence,text,asr_text", "a.wav,1,sad,2,good,god", "a.wav,2,sad,3,bye,"]
    (tmp_path / "m.csv").write_text("\n".join(rows))
    own = list(corpora.load_utterances("manifest", tmp_path / "m.csv"))
    found = load_texts(TextConfig(source="column", column="asr_text"), own)
    assert list(found.texts.values()) == ["god", None]
    assert found.card == {"source": "column", "column": "asr_text", "with_text": 1, "without_text": 1}
    for column in ("asr", "valence", "text"):
        with pytest.raises(SertoneError, match="one of asr_text, emotion") as caught:
            load_texts(TextConfig(source="column", column=column), own)
        assert caught.value.code == "missing_text_column"


def test_recognised_texts_are_cached(babbler, tmp_path, monkeypatch):
    own, config, lines = noises(tmp_path), asr(babbler, tmp_path / "kept"), []
    first = load_texts(config, own, "en", lines.append)
    assert all("word" in text for text in first.texts.values()) and len(set(first.texts.values())) > 1
    assert lines[-1] == "speech recognition with tiny: 3 of 3 recordings"
    shutil.rmtree(tmp_path / "kept")
    assert load_texts(config, own, "en") == first  # the same when it is recognised anew
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "faster_whisper", None)  # importing it fails from here on
        assert load_texts(config, own, "en", lines.append) == first and len(lines) == 3
        moved = replace(own[0], id="other", path=shutil.copy(own[0].path, tmp_path / "moved.wav"))
        assert load_texts(config, [moved], "en").texts == {"other": first.texts["u0"]}
        for changed in (
            (config, [replace(own[0], end_s=0.5)], "en"),
            (asr(babbler, tmp_path / "kept", beam_size=2), own, "en"),
            (config, own, "de"),
        ):
            with pytest.raises(SertoneError, match=r"\[asr\]") as caught:
                load_texts(*changed)
            assert caught.value.code == "missing_extra"


def test_two_processes_recognise_each_recording_once(babbler, tmp_path):
    own, config, lines = noises(tmp_path), asr(babbler, tmp_path / "kept"), []
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: load_texts(config, own, "", lines.append), range(2))
    assert first == second and first.with_text == 3 and len(lines) == 3


def test_a_model_is_identified_by_its_files(babbler, tmp_path, monkeypatch):
    own, kept = noises(tmp_path, 1), tmp_path / "kept"
    first = load_texts(asr(babbler, kept), own)
    copy = shutil.copytree(babbler, tmp_path / "else" / "tiny")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "faster_whisper", None)
        assert load_texts(asr(copy, kept), own) == first
    shutil.rmtree(copy)
    whisper.write(copy, tmp_path / "scratch", seed=1)
    other = load_texts(asr(copy, kept), own)
    assert other.card["sha256"] != first.card["sha256"] and other.texts != first.texts


def test_only_the_span_of_an_utterance_is_recognised(babbler, tmp_path):
    (own,) = noises(tmp_path, 1)
    samples, rate = soundfile.read(own.path, dtype="int16")
    soundfile.write(tmp_path / "cut.wav", samples[4000:8000], rate)
    part, cut = replace(own, start_s=0.25, end_s=0.5), replace(own, id="cut", path=tmp_path / "cut.wav")
    config = asr(babbler, tmp_path / "kept")
    assert load_texts(config, [part]).texts["u0"] == load_texts(config, [cut]).texts["cut"]
    assert load_texts(config, [part]).texts != load_texts(config, [own]).texts


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"text": "x"}', '{"text": "x", "checksum": "y"}'])
def test_a_damaged_file_is_recognised_again(babbler, tmp_path, damage):
    own, config = noises(tmp_path, 1), asr(babbler, tmp_path / "kept")
    first = load_texts(config, own)
    (path,) = (tmp_path / "kept").rglob("*.json")
    whole = path.read_text()
    assert json.loads(whole)["text"] == first.texts["u0"]
    path.write_text(damage)
    assert load_texts(config, own) == first and path.read_text() == whole


def test_recordings_that_cannot_be_read_are_named_and_have_no_text(babbler, tmp_path):
    own = noises(tmp_path)
    own[1].path.write_bytes(b"no sound at all")
    own[2].path.write_bytes(own[2].path.read_bytes()[:44] + bytes(20))
    lines = []
    for _ in range(2):
        found = load_texts(asr(babbler, tmp_path / "kept"), own, "", lines.append)
        assert found.failed == {"not_audio": ["u1"], "too_short": ["u2"]} == found.card["failed"]
        assert (found.with_text, found.without_text) == (1, 2) and found.texts["u1"] is None
    assert "1 recording without a transcript, not audio: u1" in lines


def test_the_card_states_what_the_texts_depend_on_and_no_path(babbler, tmp_path):
    card = load_texts(asr(babbler, tmp_path / "kept"), noises(tmp_path, 1), "en").card
    assert card["source"] == "asr" and card["model"] == "tiny" and len(card["sha256"]) == 64
    assert card["language"] == "en" and (card["beam_size"], card["compute_type"]) == (1, "float32")
    assert card["versions"].keys() == {"faster-whisper", "ctranslate2"} and "failed" not in card
    assert str(tmp_path) not in json.dumps(card) and str(babbler.parent) not in json.dumps(card)


def test_the_language_comes_from_the_recipe_or_the_corpus_or_is_detected(polyglot, tmp_path):
    own, kept = noises(tmp_path, 2), tmp_path / "kept"
    german = load_texts(asr(polyglot, kept), own, "de")
    assert german.card["language"] == "de"
    assert load_texts(asr(polyglot, kept, language="de"), own, "en").texts == german.texts
    english, detected = load_texts(asr(polyglot, kept), own, "en"), load_texts(asr(polyglot, kept), own)
    assert english.texts != german.texts and detected.card["language"] == "detected"
    assert detected == load_texts(asr(polyglot, tmp_path / "anew"), own)


def test_a_language_unknown_to_the_model(babbler, polyglot):
    for model, known in ((babbler, "one of en;"), (polyglot, "one of af, am, ")):
        with pytest.raises(SertoneError, match=known) as caught:
            Recogniser(AsrConfig(model=str(model), language="xx"))
        assert caught.value.code == "unknown_language"
    with pytest.raises(SertoneError, match=r"'de', which .* does not know"):
        Recogniser(AsrConfig(model=str(babbler)), "de")


@pytest.mark.parametrize("model", ["small", "enormous", "who/knows", "/no/where/at", "."])
def test_a_model_that_is_not_available(tmp_path, monkeypatch, model):
    """The network is off in all tests."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SertoneError, match=r"a size such as `small`") as caught:
        Recogniser(AsrConfig(model=model))
    assert caught.value.code == "bad_asr_model"


def test_the_recogniser_transcribes_samples(babbler, tmp_path):
    config = asr(babbler, tmp_path / "kept")
    (own,) = noises(tmp_path, 1)
    samples, _ = soundfile.read(own.path, dtype="float32")
    recogniser = Recogniser(config.asr, "en")
    assert recogniser(samples) == recogniser(samples) == load_texts(config, [own], "en").texts["u0"]


def recipe_with(small_demo, text, **data):
    values = {
        "data": {"corpus": "demo", "root": str(small_demo), "text": text} | data,
        "protocol": {"split": "grouped_k_fold", "folds": 2},
        "model": TINY_MODEL,
        "train": {"epochs": [1, 1], "batch_size": 8},
    }
    return recipes.Recipe.model_validate(values)


def test_an_experiment_has_the_texts_that_its_recipe_names(small_demo):
    own, without = (prepare(recipe_with(small_demo, source)) for source in ("corpus", "none"))
    assert own.card["text"] == {"source": "corpus", "with_text": 40, "without_text": 0}
    assert without.card["text"] == {"source": "none", "with_text": 0, "without_text": 40}
    sides = [u for fold in without.folds for side in fold.subsets.values() for u in side]
    assert {u.text for u in without.utterances} == {u.text for u in sides} == {None}
    assert all(u.text for u in own.utterances)
    assert own.card["leaks"] == without.card["leaks"] and own.card["leaks"][0]["scripted_texts"]
    assert own.card["contents"].pop("texts") != without.card["contents"].pop("texts")
    assert {k: v for k, v in own.card.items() if k != "text"} == {
        k: v for k, v in without.card.items() if k != "text"
    }


def test_an_experiment_recognises_in_the_language_of_its_corpus(small_demo, babbler, tmp_path):
    lines: list[str] = []
    text = asr(babbler, tmp_path / "kept").model_dump()
    experiment = prepare(recipe_with(small_demo, text), say=lines.append)
    assert experiment.card["text"]["language"] == "en" and experiment.card["text"]["with_text"] == 40
    assert lines[-1] == "speech recognition with tiny: 40 of 40 recordings"
    assert all("word" in str(u.text) for u in experiment.utterances)
    again: list[str] = []
    assert prepare(recipe_with(small_demo, text), say=again.append).card == experiment.card
    assert not any("recognition" in line for line in again)


def test_a_run_states_the_source_of_its_texts_and_other_texts_are_another_experiment(small_demo, tmp_path):
    path, run = tmp_path / "r.yaml", tmp_path / "run"
    path.write_text(recipes.dump(recipe_with(small_demo, "none")))
    assert cli.app(["crossval", str(path), "--out", str(run), "--jobs", "1"]) == 0
    assert "source: none; 0 with text, 40 without" in (run / "report.html").read_text()
    with pytest.raises(SertoneError, match=r"data\.text\.source: was none, now corpus"):
        cli.app(["crossval", str(path), "--out", str(run), "--set", "data.text=corpus"])
    before = yaml.safe_load((run / "recipe.yaml").read_text())
    del before["data"]["text"]
    card = json.loads((run / "protocol.json").read_text())
    del card["text"]
    (run / "recipe.yaml").write_text(yaml.safe_dump(before, explicit_end=True))
    (run / "protocol.json").write_text(json.dumps(card))
    with pytest.raises(SertoneError, match=r"data\.text: was not set, now \{'source': 'none'") as caught:
        cli.app(["crossval", str(path), "--out", str(run), "--jobs", "1"])
    assert caught.value.code == "other_experiment" and "text: was not set" in str(caught.value)
    assert cli.app(["compare", str(run), str(run)]) == 0  # and is compared as before


WORDS = [f"{first}{second}" for first in "bdfgklmnprstvz" for second in ("a", "eno", "imu", "ot", "ure")]
SENTENCES = st.lists(st.sampled_from([*WORDS, "Don't", "[LAUGHTER]", "well,", "twenty-one", "-"])).map(
    " ".join
)


@given(SENTENCES, st.floats(0, 1), st.integers(0, 9))
def test_word_errors_only_replace_words(text, rate, seed):
    noisy = add_word_errors(text, rate, WORDS, seed)
    before, after = normalise_transcript(text).split(), normalise_transcript(noisy).split()
    assert noisy == add_word_errors(text, rate, WORDS, seed)
    assert len(before) == len(after) and len(noisy.split()) == len(text.split())
    assert noisy.count("[LAUGHTER]") == text.count("[LAUGHTER]")
    assert all(new == old or new in WORDS for old, new in zip(before, after, strict=True))
    assert add_word_errors(text, 0, WORDS, seed) == text
    all_new = normalise_transcript(add_word_errors(text, 1, WORDS, seed)).split()
    assert all(new != old for old, new in zip(before, all_new, strict=True))


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.6])
def test_the_word_error_rate_is_the_requested_one(rate):
    draw = np.random.default_rng(0)
    names = [f"{a}{b}" for a in WORDS for b in WORDS[::3]]
    texts = [" ".join(draw.choice(names, 12)) for _ in range(1500)]
    words = list_words(texts)
    noisy = [add_word_errors(text, rate, words, seed=3) for text in texts]
    assert jiwer.wer(texts, noisy) == pytest.approx(rate, abs=0.015)
    counts = jiwer.process_words(texts, noisy)
    assert counts.deletions == counts.insertions <= 0.02 * counts.substitutions
    other = [add_word_errors(text, rate, words, seed=4) for text in texts]
    assert sum(a != b for a, b in zip(noisy, other, strict=True)) > 500


def test_impossible_word_errors_are_refused():
    assert list_words(["So, it is.", "[NOISE] it isn't"]) == ["is", "isn't", "it", "so"]
    for rate, words, code in ((1.2, WORDS, "bad_error_rate"), (0.1, ["a", "a"], "too_few_words")):
        with pytest.raises(SertoneError) as caught:
            add_word_errors("some words", rate, words, 0)
        assert caught.value.code == code
