"""MSP-Podcast in every layout, trap by trap: labels, partitions, transcripts, output of the check."""

import csv
import json
import shutil
import tempfile
from pathlib import Path

import polars
import pytest
from conftest import RELEASES
from hypothesis import given, settings
from hypothesis import strategies as st

from sertone import audio, cli, corpora
from sertone.corpora import msp_podcast
from sertone.corpora._check import check
from sertone.errors import SertoneError
from sertone.labels import normalise_transcript
from sertone.protocol import leaks, splits

COLUMNS = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set")


def row(number=1, **cells):
    name = f"MSP-PODCAST_0001_{number:04d}.wav"
    return dict(zip(COLUMNS, [name, "H", "5.2", "6", "4.333333", "39", "Male", "Train"], strict=True)) | cells


def as_csv(rows, columns=COLUMNS):
    lines = [",".join(columns)] + [",".join(row.get(name, "") for name in columns) for row in rows]
    return "\n".join(lines) + "\n"


def as_json(rows):
    return json.dumps({row["FileName"]: {k: v for k, v in row.items() if k != "FileName"} for row in rows})


def tree(root, rows, labels="Labels/labels_consensus.csv", text="", audio="Audios", **files):
    """Write labels and empty recordings, because readers only need their names; `files` are written to the root."""
    (root / audio).mkdir(parents=True)
    for cells in rows:
        (root / audio / cells["FileName"]).touch()
    path = root / labels
    path.parent.mkdir(exist_ok=True)
    path.write_text(text or (as_csv if path.suffix == ".csv" else as_json)(rows))
    for name, content in files.items():
        (root / f"{name}.txt").write_text(content)
    return root


def read(root, name="msp_podcast"):
    problems = []
    return list(corpora.load_utterances(name, root, problems.append)), [p.code for p in problems]


@pytest.mark.parametrize("release", RELEASES)
def test_every_row_of_the_label_file_is_read_as_it_stands(podcasts, release):
    (table,) = (podcasts[release] / "Labels").glob("*.csv")
    rows = {r["FileName"][:-4]: r for r in polars.read_csv(table, infer_schema=False).to_dicts()}
    utterances = {u.id: u for u in corpora.load("msp_podcast", podcasts[release])}
    assert len(rows) == 200 and rows.keys() <= utterances.keys()
    letters = {"A": "angry", "S": "sad", "H": "happy", "U": "surprised", "F": "fearful", "D": "disgusted"}
    letters |= {"C": "contempt", "N": "neutral", "O": "other", "X": "no_agreement"}
    sides = {"Train": "train", "Validation": "validation", "Development": "validation", "Test1": "test"}
    for name, cells in rows.items():
        u = utterances[name]
        assert (
            u.labels["emotion"] == letters[cells["EmoClass"]] and u.labels["raw_emotion"] == cells["EmoClass"]
        )
        ratings = [u.labels[rating] for rating in ("arousal", "valence", "dominance")]
        assert ratings == [float(cells[column]) for column in ("EmoAct", "EmoVal", "EmoDom")]
        assert u.split == sides.get(cells["Split_Set"]) and u.labels["partition"] == cells["Split_Set"]
        assert u.known_speaker == (cells["SpkrID"] != "Unknown")
        assert u.speaker == (cells["SpkrID"] if u.known_speaker else name)
        assert u.labels.get("gender") == {"Female": "female", "Male": "male"}.get(cells["Gender"])
    assert {cells["EmoClass"] for cells in rows.values()} == set(letters)


def test_layouts_differ_and_their_contents_do_not(podcasts):
    old, new = (corpora.load("msp_podcast", podcasts[release]) for release in RELEASES)
    assert (podcasts["1.8"] / "Audio").is_dir() and (podcasts["1.11"] / "Audios").is_dir()
    test3 = [u for u in new if u.labels["partition"] == "Test3"]
    assert len(test3) == len(new) - len(old) == 6
    assert [u.labels for u in test3] == [{"partition": "Test3"}] * 6 and {u.split for u in test3} == {None}
    assert not any(u.known_speaker for u in test3)
    for a, b in zip(old, new, strict=False):
        changed = {"Validation": "Development"}.get(a.labels["partition"], a.labels["partition"])
        assert a.labels | {"partition": changed} == b.labels
        assert (a.id, a.speaker, a.split, a.text) == (b.id, b.speaker, b.split, b.text)


@pytest.mark.parametrize("release", RELEASES)
def test_json_and_a_label_file_at_the_root_read_the_same(podcasts, release, tmp_path):
    original = corpora.load("msp_podcast", podcasts[release])
    root = shutil.copytree(podcasts[release], tmp_path / "copy")

    def same():
        utterances = corpora.load("msp_podcast", root)
        assert [(u.id, u.labels, u.speaker, u.split) for u in utterances] == expected

    expected = [(u.id, u.labels, u.speaker, u.split) for u in original]
    (table,) = (root / "Labels").glob("*.csv")
    table.unlink()
    same()
    shutil.move(table.with_suffix(".json"), root)
    (root / "Labels").rmdir()
    same()


def test_the_check_reports_the_release(podcasts, capsys):
    for release, words in (
        ("1.8", "looks like v1.10 or earlier: Test1, Test2, Train, Validation, labels_concensus.csv, Audio"),
        (
            "1.11",
            "looks like v1.11 or later: Development, Test1, Test2, Test3, Train, labels_consensus.csv, Audios",
        ),
    ):
        assert cli.app(["corpora", "check", "msp_podcast", str(podcasts[release]), "--classes", "four"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert f"release  {words}" in lines
        assert any(line.endswith("utterances of unknown speakers") for line in lines)
        assert (
            f"{len(list((podcasts[release] / 'Transcripts').iterdir()))} utterances with a transcript"
            in lines
        )


@pytest.mark.parametrize(
    "sides, labels, guess",
    [
        (["Train", "Test1"], "labels_consensus", "cannot be told"),
        (["Train", "Test1"], "labels_concensus", "looks like v1.10 or earlier"),
        (["Validation", "Test1"], "labels_consensus", "looks like v1.10 or earlier"),
        (["Development", "Test1"], "labels_consensus", "looks like v1.11 or later"),
        (["Development", "Test1"], "labels_concensus", "has names of older and of newer releases"),
    ],
)
def test_guess_release(tmp_path, sides, labels, guess):
    rows = [row(number, Split_Set=side) for number, side in enumerate(sides)]
    description = msp_podcast.guess_release(tree(tmp_path / "x", rows, f"Labels/{labels}.csv"))
    assert description == f"{guess}: {', '.join([*sorted(sides), f'{labels}.csv', 'Audios'])}"


CELLS = st.fixed_dictionaries(
    {
        "EmoClass": st.sampled_from("ASHUFDCNOX"),
        "EmoAct": st.floats(1, 7).map(str),
        "EmoVal": st.sampled_from(["", "NaN", "4.0", "1"]),
        "EmoDom": st.floats(1, 7).map(str),
        "SpkrID": st.sampled_from(["Unknown", "", "7", "12"]),
        "Gender": st.sampled_from(["Unknown", "", "Male", "Female"]),
        "Split_Set": st.sampled_from(["Train", "Development", "Validation", "Test1", "Test2"]),
    }
)


@settings(max_examples=25, deadline=None)
@given(st.lists(CELLS, min_size=1, max_size=8), st.randoms(), st.permutations(COLUMNS))
def test_the_order_of_rows_and_columns_and_the_format_make_no_difference(cells, random, columns):
    rows = [row(number) | changes for number, changes in enumerate(cells)]
    shuffled = random.sample(rows, len(rows))
    with tempfile.TemporaryDirectory() as folder:
        root = tree(Path(folder) / "root", rows)
        path = root / "Labels" / "labels_consensus.csv"
        first, problems = read(root)
        path.write_text(as_csv(shuffled, columns))
        second = read(root)
        path.unlink()
        path.with_suffix(".json").write_text(as_json(shuffled))
        assert (first, problems) == second == read(root) == (first, [])
    assert [u.id for u in first] == [r["FileName"][:-4] for r in rows]
    assert [u.known_speaker for u in first] == [r["SpkrID"] in ("7", "12") for r in rows]
    assert [u.labels.get("valence") for u in first] == [{"4.0": 4.0, "1": 1.0}.get(r["EmoVal"]) for r in rows]


def test_partitions_of_their_own_file(tmp_path):
    rows = [row(number, Split_Set="") for number in range(4)]
    words = ("Train", "Development", "Test1", "Test2")
    lines = "".join(f"{word}; {r['FileName']}\n" for word, r in zip(words, rows, strict=True))
    for name in ("Partitions", "Partition"):
        root = tree(tmp_path / name, rows, **{name: f"suggested partitions\n{lines}"})
        utterances, problems = read(root)
        assert [u.split for u in utterances] == ["train", "validation", "test", None] and not problems
        assert [u.labels["partition"] for u in utterances] == list(words)
    utterances, problems = read(tree(tmp_path / "none", rows))
    assert [u.split for u in utterances] == [None] * 4 and not problems
    assert not any("partition" in u.labels for u in utterances)


def test_test3_is_known_by_its_row_its_partition_or_its_name(tmp_path):
    empty = dict.fromkeys(COLUMNS[1:-1], "") | {"Split_Set": "Test3"}
    names = ["MSP-PODCAST_1000_0001.wav", "MSP-PODCAST_1000_0002.wav", "MSP-PODCAST_test3_0001.wav"]
    root = tree(tmp_path / "x", [row()], Partitions=f"Train; {row()['FileName']}\nTest3; {names[1]}\n")
    (root / "Labels/labels_consensus.csv").write_text(as_csv([row(), empty | {"FileName": names[0]}]))
    for name in names:
        (root / "Audios" / name).touch()
    utterances, problems = read(root)
    assert len(utterances) == 4 and not problems
    assert all(u.labels == {"partition": "Test3"} and u.split is None for u in utterances[1:])
    for name in names[:2]:
        (root / "Audios" / name).unlink()  # those that have not come with this copy
    assert read(root)[1] == []


@pytest.mark.parametrize(
    "cells, code, labels",
    [
        ({"EmoClass": "Q"}, "unknown_label", {"raw_emotion": "Q"}),
        ({"EmoAct": "high"}, "bad_number", {}),
        ({"EmoVal": "inf"}, "bad_number", {}),
        ({"Split_Set": "Test9"}, "bad_split", {"partition": "Test9"}),
    ],
)
def test_cells_that_are_wrong(tmp_path, cells, code, labels):
    root = tree(tmp_path / "x", [row(), row(2, **cells)])
    (_, utterance), problems = read(root)
    assert problems == [code] and labels.items() <= utterance.labels.items()
    with pytest.raises(SertoneError) as caught:
        corpora.load("msp_podcast", root)
    assert caught.value.code == code


def test_recordings_without_rows_and_rows_without_recordings(tmp_path):
    root = tree(tmp_path / "x", [row(number) for number in range(9)])
    for number in range(5):
        (root / "Audios" / row(number)["FileName"]).unlink()
    (root / "Audios" / "MSP-PODCAST_9999_0001.wav").touch()
    (root / "Audios" / "._MSP-PODCAST_9999_0002.wav").touch()
    problems = []
    utterances = list(corpora.load_utterances("msp_podcast", root, problems.append))
    assert [u.id[-4:] for u in utterances] == ["0005", "0006", "0007", "0008"]
    messages = {p.code: p.message for p in problems}
    assert set(messages) == {"missing_audio", "missing_labels"}
    assert messages["missing_audio"].startswith("5 ") and messages["missing_audio"].endswith(", ...")
    assert messages["missing_labels"] == "1 recording without a row of labels: MSP-PODCAST_9999_0001"


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_recording_with_two_rows_of_labels(tmp_path, suffix):
    rows = [row(), row(2, EmoClass="N"), row(2, EmoClass="S")]
    inner = [json.dumps({k: v for k, v in r.items() if k != "FileName"}) for r in rows]
    pairs = ", ".join(f'"{r["FileName"]}": {cells}' for r, cells in zip(rows, inner, strict=True))
    text = as_csv(rows) if suffix == ".csv" else f"{{{pairs}}}"
    utterances, problems = read(tree(tmp_path / "x", rows, f"labels_consensus{suffix}", text))
    assert problems == ["duplicate_row"]
    assert [u.labels["emotion"] for u in utterances] == ["happy", "neutral"]


def test_partitions_that_contradict_each_other(tmp_path):
    lines = f"Test1; {row()['FileName']}\nTrain; {row(2)['FileName']}\n"
    utterances, problems = read(tree(tmp_path / "x", [row(), row(2)], Partitions=lines))
    assert problems == ["other_partition"] and {u.split for u in utterances} == {"train"}


def test_label_files_that_cannot_be_read(tmp_path):
    for name, text in (("a", "{"), ("b", "[1]"), ("c", '{"x.wav": 3}')):
        with pytest.raises(SertoneError) as caught:
            read(tree(tmp_path / name, [row()], "Labels/labels_consensus.json", text))
        assert caught.value.code == "bad_table"
    root = tree(tmp_path / "d", [row()], text=as_csv([row()], COLUMNS[:-3] + COLUMNS[-1:]))
    utterances, problems = read(root)
    assert problems == ["missing_column"] and not utterances[0].known_speaker
    shutil.rmtree(root / "Labels")
    with pytest.raises(SertoneError) as caught:
        read(root)
    assert caught.value.code == "not_this_corpus"


def test_a_rating_off_the_scale_is_noted(podcasts, tmp_path):
    root = shutil.copytree(podcasts["1.8"], tmp_path / "x")
    (table,) = (root / "Labels").glob("*.csv")
    head, first, *lines = table.read_text().splitlines()
    cells = next(csv.reader([first]))
    cells[2] = "7.5"
    table.write_text("\n".join([head, ",".join(cells), *lines]))
    report = check("msp_podcast", root)
    assert [(p.code, p.message) for p in report.problems] == [
        ("rating_off_scale", "arousal 7.5; expected 1.0 to 7.0")
    ]


def test_transcripts_keep_their_tags_and_any_encoding(tmp_path, podcasts):
    root = tree(tmp_path / "x", [row(), row(2), row(3)])
    (root / "Transcripts").mkdir()
    long = "é" * 4096  # two bytes each: exactly two pieces
    texts = (b"[LAUGHTER] Caf\xe9 <um> now.\n", f"{long}.".encode(), b" \n")
    for number, content in enumerate(texts, 1):
        (root / "Transcripts" / row(number)["FileName"]).with_suffix(".txt").write_bytes(content)
    utterances, _ = read(root)
    assert [u.text for u in utterances] == ["[LAUGHTER] Café <um> now.", f"{long}.", None]
    tagged = [
        u.text for u in corpora.load("msp_podcast", podcasts["1.11"]) if u.text and "[LAUGHTER]" in u.text
    ]
    assert tagged and not any("laughter" in normalise_transcript(text) for text in tagged)


def test_a_stereo_recording_of_another_rate_is_read(podcasts):
    paths = [u.path for u in corpora.load("msp_podcast", podcasts["1.8"])]
    (stereo,) = [path for path in paths if audio.inspect(path).channels == 2]
    assert audio.inspect(stereo).sampling_rate == 44100
    recording = audio.read(stereo)
    assert recording.samples.ndim == 1 and len(recording.samples) == pytest.approx(0.25 * 16000, abs=2)


@pytest.mark.slow
def test_the_full_miniature(tmp_path):
    msp_podcast.fake(tmp_path, full=True)
    utterances = corpora.load("msp_podcast", tmp_path)
    assert len(utterances) == 5006
    (fold,) = splits.make_folds(utterances, "official")
    leaks.require_no_leaks(fold, leaks.find_leaks(fold, leaks.hash_recordings(utterances)))
