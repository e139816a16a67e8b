"""MELD: tables in Windows-1252, recordings in MP4, several people with one name."""

import csv
import shutil
from collections import Counter

import pytest

from sertone import audio, corpora
from sertone.corpora import _meld_fake, meld
from sertone.corpora._check import check
from sertone.errors import SertoneError
from sertone.protocol import leaks, splits

HEAD = list(_meld_fake.HEADER)
FRIENDS = {"Chandler", "Joey", "Monica", "Phoebe", "Rachel", "Ross"}


def row(dialogue=0, utterance=0, **cells):
    values = [
        1,
        "What?",
        "Monica",
        "surprise",
        "negative",
        dialogue,
        utterance,
        4,
        7,
        "00:00:01,0",
        "00:00:02,0",
    ]
    return dict(zip(HEAD, values, strict=True)) | cells


def tree(root, rows, encoding="cp1252", head=HEAD):
    """Write all rows to the test set with empty recordings; the other sets have one row each."""
    for side, set_rows in {"train": [row()], "dev": [row()], "test": rows}.items():
        folder = root / _meld_fake.FOLDERS[side]
        folder.mkdir(parents=True)
        with open(root / f"{side}_sent_emo.csv", "w", newline="", encoding=encoding) as file:
            writer = csv.DictWriter(file, head, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(set_rows)
        for cells in set_rows:
            (folder / f"dia{cells['Dialogue_ID']}_utt{cells['Utterance_ID']}.mp4").touch()
    return root


def read(root):
    problems = []
    utterances = list(corpora.load_utterances("meld", root, problems.append))
    return [u for u in utterances if u.split == "test"], [p.code for p in problems]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("meld")
    meld.fake(root)
    return root


def test_every_row_is_read_as_it_stands(small):
    emotions = {"neutral": "neutral", "surprise": "surprised", "fear": "fearful", "sadness": "sad"}
    emotions |= {"joy": "happy", "disgust": "disgusted", "anger": "angry"}
    splits = {"train": "train", "dev": "validation", "test": "test"}
    utterances = {u.id: u for u in corpora.load("meld", small)}
    rows = {}
    for side in splits:
        with open(small / f"{side}_sent_emo.csv", newline="", encoding="cp1252") as file:
            rows |= {f"{side}_dia{r['Dialogue_ID']}_utt{r['Utterance_ID']}": r for r in csv.DictReader(file)}
    assert set(rows) - set(utterances) == {"train_dia125_utt3", "dev_dia110_utt7"} and set(utterances) < set(
        rows
    )
    for name, u in utterances.items():
        cells = rows[name]
        assert (
            u.labels["emotion"] == emotions[cells["Emotion"]] and u.labels["raw_emotion"] == cells["Emotion"]
        )
        assert u.text == cells["Utterance"] and "\u2019" in u.text
        assert u.labels["sentiment"] == cells["Sentiment"] and u.split == splits[name.split("_")[0]]
        assert u.known_speaker == (cells["Speaker"] != "All")
        if cells["Speaker"] in FRIENDS:
            assert u.speaker == cells["Speaker"] and u.labels["gender"] in ("female", "male")
        elif u.known_speaker:
            assert u.speaker == f"{cells['Speaker']} s{cells['Season']}e{cells['Episode']}"
        else:
            assert u.speaker == name


def test_recordings_are_mp4_that_audio_reads(small):
    utterances = corpora.load("meld", small)
    assert {u.path.suffix for u in utterances} == {".mp4"}
    recording = audio.read(utterances[0].path)
    assert recording.sampling_rate == 16000 and 0.2 <= recording.duration_s < 0.4
    assert recording.samples.std() == pytest.approx(
        0.3 / 2**0.5 * (0.2 / recording.duration_s) ** 0.5, rel=0.1
    )


def test_unusable_recordings_are_noted_and_left_out(small):
    report = check("meld", small)
    assert report.is_sound and Counter(p.code for p in report.problems) == {
        "no_recording": 2,
        "unlisted_audio": 1,
    }
    (extra,) = [p.message for p in report.problems if p.code == "unlisted_audio"]
    assert extra.startswith("2 ") and extra.endswith("dia900_utt0, final_videos_testdia0_utt0")


def test_the_second_series_is_read_only_where_the_plain_name_is_missing(small):
    paths = {u.id: u.path.name for u in corpora.load("meld", small)}
    assert paths["test_dia0_utt0"] == "dia0_utt0.mp4"
    assert paths["test_dia1_utt1"] == "final_videos_testdia1_utt1.mp4"


def test_the_official_split_is_refused_and_groups_are_not(small):
    utterances = corpora.load("meld", small)
    hashes = leaks.hash_recordings(utterances)
    (official,) = splits.make_folds(utterances, "official")
    with pytest.raises(SertoneError, match="grouped_k_fold") as caught:
        leaks.require_no_leaks(official, leaks.find_leaks(official, hashes))
    assert caught.value.code == "speaker_leak"
    for fold in splits.make_folds(utterances, "grouped_k_fold", folds=3):
        leaks.require_no_leaks(fold, leaks.find_leaks(fold, hashes))
        assert fold.train and fold.test


def test_people_with_one_name_are_distinguished(tmp_path):
    names = [
        "Woman",
        "Woman",
        "woman ",
        "Ross",
        "ross",
        "All",
        "Ross and Joey",
        "Chandler/Monica",
        "",
        "Marshall",
    ]
    episodes = [1, 2, 1] + [3] * 7
    rows = [
        row(0, n, Speaker=name, Episode=episode)
        for n, (name, episode) in enumerate(zip(names, episodes, strict=True))
    ]
    utterances, problems = read(tree(tmp_path, rows))
    assert not problems
    speakers = [u.speaker for u in utterances]
    assert speakers[:5] == ["Woman s4e1", "Woman s4e2", "Woman s4e1", "Ross", "Ross"]
    assert [u.known_speaker for u in utterances] == [True] * 5 + [False] * 4 + [True]
    assert len(set(speakers[5:])) == 5 and speakers[9] == "Marshall s4e3"
    assert [u.labels.get("gender") for u in utterances][2:5] == [None, "male", "male"]


def test_without_episodes_a_name_counts_within_its_dialogue(tmp_path):
    rows = [row(0, 0, Speaker="Nurse"), row(0, 1, Speaker="Nurse"), row(1, 0, Speaker="Nurse")]
    utterances, problems = read(tree(tmp_path, rows, head=HEAD[:7]))
    assert [u.speaker for u in utterances] == ["Nurse test_dia0"] * 2 + ["Nurse test_dia1"] and not problems


@pytest.mark.parametrize(
    "text, encoding",
    [
        ("he\u2019s \u201cin\u201d", "cp1252"),
        ("he\x92s \x93in\x94", "utf-8"),
        ("he\u2019s \u201cin\u201d", "utf-8-sig"),
    ],
)
def test_apostrophes_survive_every_encoding(tmp_path, text, encoding):
    (utterance,), _ = read(tree(tmp_path, [row(Utterance=text)], encoding))
    assert utterance.text == "he\u2019s \u201cin\u201d"


def test_tables_and_recordings_in_other_places(small, tmp_path):
    def summarise(root):
        return [(u.id, u.labels, u.speaker, u.text, u.split) for u in corpora.load("meld", root)]

    before = summarise(small)
    for number, deep in enumerate((True, False)):
        root = shutil.copytree(small, tmp_path / str(number))
        for side, folder in _meld_fake.FOLDERS.items():
            if deep:
                (root / side).mkdir()
                shutil.move(root / folder, root / side)
                shutil.move(root / f"{side}_sent_emo.csv", root / side)
            else:
                (root / folder).rename(root / side)
        assert summarise(root) == before


def test_wav_goes_before_the_video_it_was_made_from(tmp_path):
    root = tree(tmp_path, [row(), row(0, 1)])
    for name in ("dia0_utt0.wav", "dia0_utt1.flac", "._dia0_utt1.wav"):
        (root / "output_repeated_splits_test" / name).touch()
    utterances, problems = read(root)
    assert [u.path.name for u in utterances] == ["dia0_utt0.wav", "dia0_utt1.flac"] and not problems


def test_problems_are_reported(tmp_path):
    root = tree(tmp_path / "a", [row(), row(0, 1), row(0, 2, Emotion="awe")])
    (root / "output_repeated_splits_test" / "dia0_utt1.mp4").unlink()
    (root / "dev_sent_emo.csv").unlink()
    utterances, problems = read(root)
    assert Counter(problems) == {"missing_side": 1, "missing_audio": 1, "unknown_label": 1}
    assert [u.labels.get("emotion") for u in utterances] == ["surprised", None]
    utterances, problems = read(tree(tmp_path / "b", [row()], head=HEAD[:2] + HEAD[3:]))
    assert not utterances and problems.count("missing_column") == 3
    assert [
        p.code
        for p in check("meld", tree(tmp_path / "c", [row(), row()])).problems
        if p.code == "duplicate_id"
    ]


def test_without_pyav_the_miniature_is_wav(tmp_path, monkeypatch):
    monkeypatch.setattr(_meld_fake, "find_spec", lambda name: None)
    meld.fake(tmp_path)
    report = check("meld", tmp_path, "four")
    assert report.is_sound and all(report.by_class.values())
    assert {u.path.suffix for u in corpora.load("meld", tmp_path)} == {".wav"}


@pytest.mark.slow
def test_the_full_miniature_has_the_published_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(_meld_fake, "find_spec", lambda name: None)
    meld.fake(tmp_path, full=True)
    utterances = corpora.load("meld", tmp_path)
    assert Counter(u.split for u in utterances) == {"train": 9988, "validation": 1108, "test": 2610}
