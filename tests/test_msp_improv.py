"""MSP-IMPROV turn by turn; the speakers of MSP-IMPROV and MSP-Podcast: official split, unknown speakers."""

import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import RELEASES
from test_msp_podcast import read, row, tree

from sertone import corpora
from sertone.corpora import msp_improv
from sertone.corpora._check import check
from sertone.errors import SertoneError
from sertone.labels import resolve_class_map
from sertone.nn.heads import ClassHead
from sertone.nn.vocabulary import Vocabulary
from sertone.protocol import leaks, splits


@pytest.fixture(scope="module")
def improv(tmp_path_factory):
    root = tmp_path_factory.mktemp("improv")
    msp_improv.fake(root)
    return root


LINE = "UTD-IMPROV-S01A-F03-{}-FM01.avi; H; A:2.800000; V:NaN; D:3.200000 ; N:3.600000;\n"
RATERS = """r1; Happy; Happy,Excited; A:3.0; V:3.0; D:3.0; N:4.0;
r2; Sad; ; A:NaN; V:3.0; D:3.0; N:4.0;
r3; Happy; Happy; Other; A:3.0; V:3.0; D:3.0; N:4.0;
r1; Happy; Happy,Excited; A:3.0; V:3.0; D:3.0; N:4.0;
"""


def one_turn(root, scenario, text, folder="session3"):
    path = root / folder / "S01A" / scenario / f"MSP-IMPROV-S01A-F03-{scenario}-FM01.wav"
    path.parent.mkdir(parents=True)
    path.touch()
    (root / "Evaluation.txt").write_text(text)
    return read(root, "msp_improv")


@pytest.mark.parametrize(
    "scenario, style", [("R", "scripted"), ("S", "improvised"), ("T", "improvised"), ("P", "improvised")]
)
def test_a_turn_of_improv(tmp_path, scenario, style):
    (u,), problems = one_turn(tmp_path, scenario, LINE.format(scenario) + RATERS)
    assert not problems and u.id == f"MSP-IMPROV-S01A-F03-{scenario}-FM01"
    assert (u.speaker, u.session, u.labels["gender"], u.labels["style"]) == (
        "F03",
        "session3",
        "female",
        style,
    )
    assert (u.labels["emotion"], u.labels["raw_emotion"]) == ("happy", "H")
    assert (u.labels["arousal"], u.labels["dominance"]) == (2.8, 3.2) and "valence" not in u.labels
    assert u.votes == pytest.approx({"happy": 2 / 3, "sad": 1 / 3})


@pytest.mark.parametrize(
    "text, codes",
    [
        (LINE.format("S").replace("2.800000", "much"), ["bad_number"]),
        (LINE.format("S") * 2, ["duplicate_row"]),
        (LINE.format("S").replace("; H;", "; Q;"), ["unknown_label"]),
        (LINE.format("S") + "r1; Bored; Bored; A:3.0;\n", ["unknown_vote"]),
        ("", ["missing_labels"]),
        (LINE.format("S") + LINE.format("T"), ["missing_audio"]),
    ],
)
def test_problems_of_improv(tmp_path, text, codes):
    assert one_turn(tmp_path, "S", text)[1] == codes


def test_improv_in_other_places(improv, tmp_path):
    before = corpora.load("msp_improv", improv)
    root = shutil.copytree(improv, tmp_path / "x")
    (root / "Audio").mkdir()
    for folder in root.glob("session*"):
        folder.rename(root / "Audio" / folder.name)
    (root / "Evaluation.txt").rename(root / "Evalution.txt")
    (root / "Human_transcriptions").mkdir()
    shutil.move(root / "All_human_transcriptions", root / "Human_transcriptions")
    after = corpora.load("msp_improv", root)
    assert [(u.id, u.labels, u.votes, u.text) for u in after] == [
        (u.id, u.labels, u.votes, u.text) for u in before
    ]
    assert all(u.text for u in after)
    (root / "Audio/session1").rename(root / "Audio/elsewhere")
    assert set(read(root, "msp_improv")[1]) == {"missing_audio"}
    stray = next(root.glob("Audio/session2/S*/*/MSP*.wav"))
    stray.rename(stray.with_name("take one.wav"))
    assert set(read(root, "msp_improv")[1]) == {"missing_audio", "missing_labels", "bad_name"}


@pytest.mark.slow
def test_improv_has_the_published_counts(tmp_path):
    msp_improv.fake(tmp_path, full=True)
    utterances = corpora.load("msp_improv", tmp_path)
    assert len(utterances) == 8438
    assert Counter(u.labels["raw_emotion"] for u in utterances) == {
        "A": 792, "S": 885, "H": 2644, "N": 3477, "O": 85, "X": 555,
    }  # fmt: skip
    scenarios = Counter(u.labels["scenario"] for u in utterances)
    assert scenarios == {
        "other_improvised": 4381,
        "natural": 2785,
        "target_improvised": 652,
        "target_read": 620,
    }


# Speakers


@pytest.mark.parametrize("release", RELEASES)
def test_the_official_split_shares_no_speaker(podcasts, release):
    utterances = corpora.load("msp_podcast", podcasts[release])
    (fold,) = splits.make_folds(utterances, "official")
    assert {u.labels["partition"] for u in fold.test} == {"Test1"}
    assert all(len(side) > 20 for side in fold.subsets.values())
    report = leaks.find_leaks(fold, leaks.hash_recordings(utterances))
    leaks.require_no_leaks(fold, report)
    leaks.require_labels(fold, resolve_class_map("four", {}))
    moved = next(u for u in fold.train if u.known_speaker)
    torn = splits.Fold("torn", [u for u in fold.train if u != moved], fold.validation, [*fold.test, moved])
    with pytest.raises(SertoneError, match=moved.speaker):
        leaks.require_no_leaks(torn, leaks.find_leaks(torn, leaks.hash_recordings(utterances)))


def test_unknown_speakers_are_no_class_of_the_vocabulary(podcasts):
    utterances = corpora.load("msp_podcast", podcasts["1.11"])
    vocabulary = Vocabulary.from_utterances(utterances, resolve_class_map("four", {}))
    assert vocabulary.classes["speaker"] == sorted({u.speaker for u in utterances if u.known_speaker})
    unknown = [u for u in utterances if not u.known_speaker]
    named = next(u for u in utterances if u.known_speaker)
    assert len({u.speaker for u in unknown}) == len(unknown) > 10
    assert {vocabulary.find_label("speaker", u) for u in unknown} == {None}
    targets = vocabulary.make_targets("speaker", [unknown[0], named])
    assert np.array_equal(targets.sum(1).numpy(), [0.0, 1.0])
    nobody = Vocabulary.from_utterances(unknown, resolve_class_map("four", {}))
    head = ClassHead(4, 4, nobody.classes["speaker"], smoothing=0.1)
    output = head(torch.ones(len(unknown), 3, 4), torch.full((len(unknown),), 3))
    assert head.loss(output, nobody.make_targets("speaker", unknown)) == 0


def test_unknown_speakers_neither_choose_the_epoch_nor_have_a_fold(podcasts):
    utterances = [u for u in corpora.load("msp_podcast", podcasts["1.11"]) if "emotion" in u.labels]
    known_speakers = {u.speaker for u in utterances if u.known_speaker}
    folds = splits.make_folds(utterances, "leave_one_speaker_out")
    assert [fold.name for fold in folds] == sorted(known_speakers)
    choosers = [{u.speaker for u in fold.validation} for fold in folds]
    assert all(len(chooser) == 1 and chooser < known_speakers for chooser in choosers)
    assert {u.speaker for u in splits.make_full_fold(utterances, "speaker").validation} < known_speakers
    grouped = splits.make_folds(utterances, "grouped_k_fold", folds=4)
    assert Counter(u.id for fold in grouped for u in fold.test) == Counter(u.id for u in utterances)
    strangers = [u for u in utterances if not u.known_speaker]
    for split in (
        lambda: splits.make_full_fold(strangers, "speaker"),
        lambda: splits.make_folds(strangers, "leave_one_speaker_out"),
    ):
        with pytest.raises(SertoneError) as caught:
            split()
        assert caught.value.code == "too_few_speakers"


def test_many_speakers_do_not_flood_the_report(tmp_path):
    rows = [
        row(0, FileName=f"{speaker}_{n}.wav", SpkrID=f"s{speaker}")
        for speaker in range(150)
        for n in range(speaker % 3 + 1)
    ]
    rows += [row(0, FileName=f"x{n}.wav", SpkrID="Unknown") for n in range(120)]
    tree(tmp_path / "x", rows)
    report = check("msp_podcast", tmp_path / "x")
    assert report.speakers == 150 and report.unknown_speakers == 120
    assert report.by_speaker["(unknown)"] == 120 and sum(report.by_speaker.values()) == len(rows)
    text = report.to_text()
    assert "150 known speakers with 1 to 3 utterances each, median 2" in text and "s17 " not in text


def test_a_manifest_marks_unknown_speakers(tmp_path):
    table = tmp_path / "m.csv"
    table.write_text("path,speaker,known_speaker\na.wav,x1,no\nb.wav,x2,Yes\nc.wav,x3,\nd.wav,x4,perhaps\n")
    utterances, problems = read(table, "manifest")
    assert [u.known_speaker for u in utterances] == [False, True, True, True] and problems == ["bad_answer"]
    assert not any(u.labels for u in utterances)


def test_improv_by_sessions_shares_no_speaker(improv):
    utterances = corpora.load("msp_improv", improv)
    assert len({u.speaker for u in utterances}) == 12
    folds = splits.make_folds(utterances, "leave_one_session_out")
    assert len(folds) == 6
    hashes = leaks.hash_recordings(utterances)
    for fold in folds:
        leaks.require_no_leaks(fold, leaks.find_leaks(fold, hashes))
