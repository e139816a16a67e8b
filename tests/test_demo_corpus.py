"""The demo corpus: reproducible from a seed, its words, its additional speakers; selection from a corpus."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from sertone import corpora
from sertone.errors import SertoneError
from sertone.labels import DIMENSIONS, STYLES

FOUR = ("neutral", "happy", "angry", "sad")


def test_the_demo_corpus_is_the_same_from_the_same_seed(tmp_path, small_demo):
    sheet = corpora.load_sheet("demo")
    sheet.fake(tmp_path / "same", takes=1, seed=0)
    sheet.fake(tmp_path / "other", takes=1, seed=1)
    names = sorted(p.relative_to(small_demo) for p in small_demo.rglob("*.wav"))
    assert len(names) == 40
    assert all((small_demo / n).read_bytes() == (tmp_path / "same" / n).read_bytes() for n in names)
    assert all((small_demo / n).read_bytes() != (tmp_path / "other" / n).read_bytes() for n in names)


def test_the_demo_corpus_has_sessions_of_a_woman_and_a_man(small_demo):
    utterances = list(corpora.load_utterances("demo", small_demo))
    by_session = {u.session: set() for u in utterances}
    for u in utterances:
        by_session[u.session].add(u.labels["gender"])
    assert len(by_session) == 5 and all(v == {"female", "male"} for v in by_session.values())
    assert all(1 <= u.labels[d] <= 5 for u in utterances for d in ("arousal", "valence", "dominance"))
    assert all(u.text for u in utterances)


def test_the_full_demo_adds_ten_speakers_to_the_same_ten(tmp_path, small_demo):
    sheet = corpora.load_sheet("demo")
    sheet.fake(tmp_path, True, takes=1)
    names = sorted(p.relative_to(small_demo) for p in small_demo.rglob("*.wav"))
    assert all((small_demo / n).read_bytes() == (tmp_path / n).read_bytes() for n in names)
    utterances = corpora.load("demo", tmp_path)
    assert len({u.speaker for u in utterances}) == 20 and len({u.path.read_bytes() for u in utterances}) == 80
    more = corpora.load("demo", tmp_path, {"session": [f"Session{n}" for n in range(6, 11)]})
    assert {u.speaker for u in more} == {u.speaker for u in utterances} - {
        n.name.split("_")[0] for n in names
    }


def test_only_selects_utterances(small_demo):
    all_utterances = corpora.load("demo", small_demo)
    women = corpora.load("demo", small_demo, {"gender": ["female"], "session": ["Session1", "Session3"]})
    expected = [
        u for u in all_utterances if u.labels["gender"] == "female" and u.session in ("Session1", "Session3")
    ]
    assert women == expected and len(women) == 8
    assert corpora.load("demo", small_demo, {"speaker": ["S2M"]}) == [
        u for u in all_utterances if u.speaker == "S2M"
    ]
    for only, message in (
        ({"gender": ["femal"]}, "female, male"),
        ({"mood": ["x"]}, "no utterance has a mood"),
        ({"speaker": ["S1F"], "gender": ["male"]}, "some of female"),
    ):
        with pytest.raises(SertoneError, match=message) as error:
            corpora.load("demo", small_demo, only)
        assert error.value.code == "nothing_selected"


@pytest.fixture(scope="module")
def whole_demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole_demo")
    corpora.fake("demo", root)
    return corpora.load("demo", root)


def ccc(answers, ratings):
    covariance = np.cov(answers, ratings, bias=True)[0, 1]
    return 2 * covariance / (np.var(answers) + np.var(ratings) + (np.mean(answers) - np.mean(ratings)) ** 2)


def score_words(utterances, ratings):
    """Return the CCC of a bag-of-words model on speakers that it was not trained on."""
    words = make_pipeline(CountVectorizer(), Ridge())
    speakers = [u.speaker for u in utterances]
    answers = cross_val_predict(
        words, [u.text for u in utterances], ratings, groups=speakers, cv=GroupKFold(5)
    )
    return ccc(answers, ratings)


def test_words_of_the_demo_carry_valence_and_not_arousal(whole_demo):
    assert len(whole_demo) == 400
    by_style = {style: [u for u in whole_demo if u.labels["style"] == style] for style in STYLES}
    ratings = {s: {d: np.array([u.labels[d] for u in us]) for d in DIMENSIONS} for s, us in by_style.items()}
    improvised = by_style["improvised"]
    assert score_words(whole_demo, np.array([u.labels["valence"] for u in whole_demo])) > 0.25
    assert score_words(improvised, ratings["improvised"]["valence"]) > 0.5
    assert abs(score_words(improvised, ratings["improvised"]["arousal"])) < 0.15
    assert all(abs(score_words(by_style["scripted"], ratings["scripted"][d])) < 0.1 for d in DIMENSIONS)
    means = {e: np.mean([u.labels["valence"] for u in improvised if u.labels["emotion"] == e]) for e in FOUR}
    beyond = ratings["improvised"]["valence"] - [means[u.labels["emotion"]] for u in improvised]
    assert score_words(improvised, beyond) > 0.3  # within an emotion, which is not audible


def test_sentences_of_the_demo_match_valence_in_most_cases_and_have_several_speakers(whole_demo):
    sheet = corpora.load_sheet("demo")
    improvised = [u for u in whole_demo if u.labels["style"] == "improvised"]
    speakers, matches = {}, []
    for u in improvised:
        ((news, middle),) = [(n, m) for n, ms in sheet.MIDDLES.items() for m in ms if m[1:] in u.text]
        speakers.setdefault(middle, set()).add(u.speaker)
        valence = u.labels["valence"]
        matches.append(
            news == ("bad" if valence < sheet.LOW else "good" if valence > sheet.HIGH else "neither")
        )
    assert 0.78 < np.mean(matches) < 0.92
    assert len(speakers) == 18 and min(map(len, speakers.values())) > 2


def test_the_card_and_the_page_show_the_selection(small_demo):
    from sertone.recipe import Recipe
    from sertone.report import protocol
    from sertone.training.experiment.experiment import prepare

    values = {
        "data": {"corpus": "demo", "root": str(small_demo), "only": {"session": ["Session1", "Session2"]}},
        "protocol": {"split": "grouped_k_fold", "folds": 2},
        "model": {"name": "baseline", "encoder": {"name": "compact", "width": 16, "depth": 1}},
        "train": {"epochs": [1], "batch_size": 8},
    }
    card = prepare(Recipe.model_validate(values)).card
    assert card["corpus"]["only"] == {"session": ["Session1", "Session2"]}
    assert ("Only", "session: Session1, Session2") in protocol.build_rows(card)
    del values["data"]["only"]
    assert "Only" not in dict(protocol.build_rows(prepare(Recipe.model_validate(values)).card))


def test_recordings_without_labels_can_be_chosen_by_labels(small_demo):
    women = corpora.load("demo", small_demo, {"gender": ["female"]}, labelled=False)
    assert len(women) == 20 and {u.speaker[-1] for u in women} == {"F"}
