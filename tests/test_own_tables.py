"""Tables and folders of users: unusual column names, separators, a folder per class."""

import csv
import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sertone import cli, corpora
from sertone.corpora._columns import FIELDS, LABELS, NUMBERS, SYNONYMS, match_columns
from sertone.corpora._tables import load_table
from sertone.corpora.manifest import load_recordings
from sertone.errors import SertoneError
from sertone.files import parse_map
from sertone.recipe import CorpusConfig

ODD = "\ufeff File-Name ;Speaker ID; LABEL ;Sex;Transcription;Arousal\na.wav;03;Joy;F;Hello, you;1.5\n"


def table(tmp_path, text, name="m.csv"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def only(path, **options):
    (utterance,) = corpora.load_utterances("manifest", path, **options)
    return utterance


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_odd_names_of_columns_are_understood(tmp_path, separator):
    text = ODD.replace("Hello, you", "Hello").replace(";", separator)
    utterance = only(table(tmp_path, text))
    assert (utterance.path, utterance.speaker, utterance.text) == (tmp_path / "a.wav", "03", "Hello")
    assert utterance.labels == {"emotion": "happy", "raw_emotion": "Joy", "gender": "female", "arousal": 1.5}
    assert load_recordings(tmp_path / "m.csv") == [(tmp_path / "a.wav", "Hello", None)]


def test_columns_of_other_formats_are_understood_alike(tmp_path):
    json_lines = '{"FILE": "a.wav", "Spk": "03", "label": "Joy"}\n'
    assert only(table(tmp_path, "\ufeff" + json_lines, "m.jsonl")).speaker == "03"
    assert only(table(tmp_path, "Wav\tActor\na.wav\t03\n", "M.TSV")).speaker == "03"


KNOWN = {*FIELDS, *NUMBERS, *LABELS}
NAMES = st.sampled_from(
    [(name, name) for name in sorted(KNOWN)] + [(o, n) for n in SYNONYMS for o in SYNONYMS[n]]
)


@st.composite
def spellings(draw):
    """Draw a recognised name in another spelling, and its meaning."""
    written, meaning = draw(NAMES)
    letters = "".join(c.upper() if draw(st.booleans()) else c for c in written)
    letters = letters.replace("_", draw(st.sampled_from(["_", " ", "-", "  "])))
    return draw(st.sampled_from(["", " ", "\t"])) + letters + draw(st.sampled_from(["", " "])), meaning


@settings(max_examples=200, deadline=None)
@given(st.lists(spellings(), min_size=1, unique_by=lambda pair: pair[1]))
def test_every_spelling_of_a_known_column_is_found(tmp_path_factory, pairs):
    path = tmp_path_factory.getbasetemp()
    named = match_columns([written for written, _ in pairs], {}, path, ())
    assert named == {meaning: written for written, meaning in pairs}


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(KNOWN)), st.text("abcäß Q", min_size=1), min_size=1))
def test_chosen_columns_override_recognised_names(tmp_path_factory, chosen):
    columns = [*dict.fromkeys(name.strip() for name in chosen.values() if name.strip()), "label", "sex"]
    chosen = {name: column for name, column in chosen.items() if column.strip() in columns}
    lower = ["".join(c.lower().split()) for c in columns]
    if len(set(lower)) < len(lower):
        return  # two that differ in case alone are another test
    named = match_columns(columns, chosen, tmp_path_factory.getbasetemp(), ())
    assert {name: named[name] for name in chosen} == {name: c.strip() for name, c in chosen.items()}
    assert set(named.values()) | {c for c in columns if c in chosen} >= {*columns} - {*chosen}


CELLS = st.text('ab ,;"é\t', max_size=6).map(str.strip)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=5), st.sampled_from(",;\t"))
def test_cells_are_read_as_they_were_written(tmp_path_factory, rows, separator):
    path = tmp_path_factory.getbasetemp() / "cells.csv"
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerows([["path", "one", "two"], *([f"x{n}", *cells[1:]] for n, cells in enumerate(rows))])
    assert [[row["one"], row["two"]] for row in load_table(path)] == [cells[1:] for cells in rows]


def test_a_column_chosen_leaves_its_rivals_as_labels(tmp_path):
    path = table(tmp_path, "path,path16k,spk,label,actor\na.wav,b.wav,1,sad,Ann\n")
    with pytest.raises(SertoneError, match="'spk' and 'actor', which both mean speaker") as caught:
        only(path)
    assert caught.value.code == "column_twice" and "--columns speaker=actor" in str(caught.value)
    utterance = only(path, columns={"speaker": "spk", "path": "path16k"})
    assert (
        utterance.path.name == "b.wav" and utterance.speaker == "1" and utterance.labels["emotion"] == "sad"
    )
    assert utterance.labels["actor"] == "Ann" and "spk" not in utterance.labels
    assert "path" not in utterance.labels and "label" not in utterance.labels


@pytest.mark.parametrize(
    ("columns", "proposed"),
    [
        ("path,audio,speaker", "path=path"),
        ("audio,path,speaker", "path=path"),
        ("audio,Path,speaker", "path=Path"),
        ("path,PATH,speaker", "path=path"),
        ("path,spk,actor", "speaker=actor"),
    ],
)
def test_the_column_with_the_exact_name_is_proposed(tmp_path, columns, proposed):
    with pytest.raises(SertoneError, match=f"choose with --columns {proposed} ") as caught:
        only(table(tmp_path, f"{columns}\na.wav,b.wav,1\n"))
    assert caught.value.code == "column_twice"


def test_codes_and_school_classes_are_neither_text_nor_emotion(tmp_path):
    utterance = only(table(tmp_path, "path,speaker,sentence,class\na.wav,1,s07,3b\n"))
    assert utterance.labels == {"sentence": "s07", "class": "3b"} and utterance.text is None


def test_check_says_which_columns_are_read_under_another_name(tmp_path, tone, capsys):
    tone("a.wav")
    path = table(tmp_path, "path,Speaker,label,Transcript,sex\na.wav,1,sad,hello,F\n")
    cli.app(["corpora", "check", "manifest", str(path), "--columns", "gender=sex"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "read_as" in line]
    assert lines == [f"note [read_as] {path}: read as: emotion from 'label', text from 'Transcript'"]


@pytest.mark.parametrize(
    ("columns", "code", "message"),
    [
        ({"path": "klip"}, "unknown_column", "no column 'klip', .*; did you mean 'clip'\\?$"),
        ({"path": "xyz"}, "unknown_column", "no column 'xyz', .*; expected one of clip, who, feeling$"),
        ({}, "missing_column", "a column path and a column speaker; --columns path=NAME"),
        ({"path": "clip"}, "missing_column", "expected a column speaker"),
    ],
)
def test_a_missing_column(tmp_path, columns, code, message):
    with pytest.raises(SertoneError, match=message) as caught:
        only(table(tmp_path, "clip,who,feeling\na.wav,1,sad\n"), columns=columns)
    assert caught.value.code == code


def test_other_columns_keep_their_names(tmp_path):
    path = table(tmp_path, ",path,speaker, ASR Text ,Vote_Very Sad,vote_awe\n0,a.wav,1,hello,3,1\n")
    utterance = only(path)
    assert utterance.labels == {"ASR Text": "hello"} and utterance.votes == {"very sad": 0.75, "awe": 0.25}


def test_options_that_a_reader_does_not_have_are_refused(tmp_path):
    corpora.fake("emodb", tmp_path / "emodb")
    with pytest.raises(SertoneError, match="one of audiofolder, manifest") as caught:
        corpora.load("emodb", tmp_path / "emodb", columns={"path": "x"})
    assert caught.value.code == "no_such_option"
    data = CorpusConfig(corpus="emodb", root=str(tmp_path / "emodb"))
    assert len(corpora.load(data.corpus, data.root, data.only, **data.reader_options)) > 20


@pytest.fixture
def folder(tmp_path):
    """Write three classes as folders, with recordings in deeper folders and in no class."""
    corpora.fake("audiofolder", tmp_path / "fake")
    clips = sorted((tmp_path / "fake").rglob("*.wav"))
    root = tmp_path / "speech"
    names = [
        "Anger/s1_a.wav",
        "Anger/deep/s2_b.wav",
        "joy/s1_c.wav",
        "joy/._s1_c.wav",
        "my class/s3.wav",
        "s4_x.wav",
    ]
    for clip, name in zip(clips, names, strict=False):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, root / name)
    return root


def test_a_folder_per_class(folder):
    utterances = {u.id: u for u in corpora.load("audiofolder", folder)}
    emotions = {name: u.labels.get("emotion") for name, u in utterances.items()}
    assert emotions == {
        "Anger/s1_a": "angry",
        "Anger/deep/s2_b": "angry",
        "joy/s1_c": "happy",
        "my class/s3": "my class",
        "s4_x": None,
    }
    assert utterances["Anger/s1_a"].labels["raw_emotion"] == "Anger"
    assert (
        not any(u.known_speaker for u in utterances.values())
        and len({u.speaker for u in utterances.values()}) == 5
    )
    assert {u.split for u in utterances.values()} == {None}


def test_speakers_of_a_pattern(folder):
    problems = []
    utterances = list(
        corpora.load_utterances("audiofolder", folder, problems.append, speaker_pattern=r"(s\d)_")
    )
    assert [u.speaker for u in utterances if u.known_speaker] == ["s2", "s1", "s1", "s4"]
    assert [p.code for p in problems] == ["no_speaker"] and "1 path without" in problems[0].message
    all_named = corpora.load("audiofolder", folder, speaker_pattern=r"s\d")
    assert {u.speaker for u in all_named} == {"s1", "s2", "s3", "s4"}
    with pytest.raises(SertoneError, match="regular expression") as caught:
        corpora.load("audiofolder", folder, speaker_pattern="(s")
    assert caught.value.code == "bad_pattern"


def test_any_group_of_a_pattern_may_be_the_speaker(folder):
    pattern = r"/(s1)_|deep/(s2)_|()s(4)_|s3()"
    utterances = {u.id: u for u in corpora.load("audiofolder", folder, speaker_pattern=pattern)}
    speakers = {name: u.speaker for name, u in utterances.items()}
    assert speakers == {
        "Anger/s1_a": "s1",
        "Anger/deep/s2_b": "s2",
        "joy/s1_c": "s1",
        "my class/s3": "s3",
        "s4_x": "4",
    }
    assert all(u.known_speaker for u in utterances.values())
    nothing = []
    utterances = list(
        corpora.load_utterances("audiofolder", folder, nothing.append, speaker_pattern=r"(s9)?")
    )
    assert not any(u.known_speaker for u in utterances) and len({u.speaker for u in utterances}) == 5
    assert [(p.code, p.severity) for p in nothing] == [("no_speaker", "error")]


def test_blanks_around_a_folder_are_no_part_of_the_class(folder):
    (folder / "Anger").rename(folder / " ANGER ")
    utterances = corpora.load("audiofolder", folder)
    assert {u.labels["emotion"] for u in utterances if "ANGER" in u.id} == {"angry"}


def test_a_table_may_name_recordings_above_it(folder, tmp_path):
    root = tmp_path / "split"
    shutil.copytree(folder, root / "train")
    (folder / "joy").rename(tmp_path / "pool")
    names = ("../../pool/s1_c.wav", "../train/Anger/s1_a.wav", "deeper/../s4_x.wav")
    rows = "".join(f"{name},s1\n" for name in names)
    table(root / "train", f"file_name,speaker\n{rows}", "metadata.csv")
    problems = []
    utterances = list(corpora.load_utterances("audiofolder", root, problems.append))
    assert [u.labels.get("emotion") for u in utterances] == [None, "angry", None]
    assert [(u.id, u.split) for u in utterances] == [
        ("s1_c", "train"),
        ("train/Anger/s1_a", "train"),
        ("train/s4_x", "train"),
    ]
    (message,) = [p.message for p in problems if p.code == "not_in_table"]
    assert message.startswith("3 recordings that no table names")


def test_speakers_as_classes_are_noted(folder, tmp_path, capsys):
    def find_notes(root):
        cli.app(["corpora", "check", "audiofolder", str(root)])
        return [line for line in capsys.readouterr().out.splitlines() if "[inner_emotions]" in line]

    assert find_notes(folder) == []
    for speaker in ("s1", "s2"):
        shutil.copytree(folder / "Anger", tmp_path / "by_speaker" / speaker / "Anger")
        shutil.copytree(folder / "joy", tmp_path / "by_speaker" / speaker / "joy")
    (line,) = find_notes(tmp_path / "by_speaker")
    assert "the classes are s1, s2, and the folders in them are emotions: Anger, joy" in line
    table(tmp_path / "by_speaker", "file_name,emotion\ns1/joy/s1_c.wav,sad\n", "metadata.csv")
    assert find_notes(tmp_path / "by_speaker") == []


def test_split_folders(folder, tmp_path):
    for side in ("Train", "dev", "test"):
        shutil.copytree(folder, tmp_path / "split" / side)
    utterances = corpora.load("audiofolder", tmp_path / "split")
    assert {u.split for u in utterances} == {"train", "validation", "test"} and len(utterances) == 15
    assert next(u for u in utterances if u.id == "dev/joy/s1_c").labels["emotion"] == "happy"
    shutil.copytree(folder / "joy", tmp_path / "split" / "joy")
    with pytest.raises(SertoneError, match=r"Train, dev, joy, test") as caught:
        corpora.load("audiofolder", tmp_path / "split")
    assert caught.value.code == "mixed_folders"


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_tables_of_hugging_face(folder, tmp_path, kind):
    root = tmp_path / "split"
    for side in ("train", "test"):
        shutil.copytree(folder, root / side)
        table(
            root / side,
            "file_name,label,actor,transcription\njoy/s1_c.wav,Sadness,s1,hello\ns4_x.wav,,,\n"
            if kind == "csv"
            else '{"file_name": "joy/s1_c.wav", "label": "Sadness", "actor": "s1", "transcription": "hello"}\n'
            '{"file_name": "s4_x.wav"}\n',
            f"metadata.{kind}",
        )
    problems = []
    utterances = list(corpora.load_utterances("audiofolder", root, problems.append))
    assert [(u.id, u.split, u.speaker, u.known_speaker) for u in utterances] == [
        ("test/joy/s1_c", "test", "s1", True),
        ("test/s4_x", "test", "test/s4_x", False),
        ("train/joy/s1_c", "train", "s1", True),
        ("train/s4_x", "train", "train/s4_x", False),
    ]
    assert (
        utterances[0].labels["emotion"] == "sad"
        and utterances[0].text == "hello"
        and "emotion" not in utterances[1].labels
    )
    assert {(p.code, p.severity) for p in problems} == {("not_in_table", "note"), ("read_as", "note")}


def test_the_folder_is_the_class_if_the_table_has_no_emotion(folder):
    table(folder, "file_name,speaker\njoy/s1_c.wav,1\nAnger/deep/s2_b.wav,2\n", "metadata.csv")
    utterances = corpora.load("audiofolder", folder)
    assert [(u.labels["emotion"], u.speaker) for u in utterances] == [("happy", "1"), ("angry", "2")]


def test_commands_that_read_a_table_take_columns(toy, tone, tmp_path, capsys):
    tone("a.wav")
    path = table(tmp_path, "clip\tsaid\na.wav\thello\n")
    command = ["predict", str(toy), "--columns", "path=clip"]
    assert cli.app([*command, "--manifest", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == str(tmp_path / "a.wav")
    for refused in (command, ["export", str(toy), str(tmp_path / "out"), "--columns", "path=clip"]):
        with pytest.raises(SertoneError) as caught:
            cli.app(refused)
        assert caught.value.code == "no_table"


def test_columns_are_chosen_on_the_command_line_or_in_a_recipe(tmp_path, tone, capsys):
    lines = ["clip,who,what"]
    for n in range(6):
        tone(f"{n}.wav", 0.5 + n / 100)
        lines.append(f"{n}.wav,s{n % 3},{('sad', 'joy')[n // 3]}")
    path, chosen = table(tmp_path, "\n".join(lines) + "\n"), "path=clip,speaker=who,emotion=what"
    command = ["corpora", "check", "manifest", str(path), "--folds", "3"]
    assert cli.app([*command, "--columns", chosen]) == 0
    assert (
        cli.app(["corpora", "export", "manifest", str(path), str(tmp_path / "out.csv"), "--columns", chosen])
        == 0
    )
    assert "6 utterances in" in capsys.readouterr().out
    data = CorpusConfig(corpus="manifest", root=str(path), columns=parse_map(chosen, "--columns"))
    utterances = corpora.load(data.corpus, data.root, **data.reader_options)
    assert utterances == corpora.load(
        "manifest", path, columns={"path": "clip", "speaker": "who", "emotion": "what"}
    )
    assert [u.id for u in utterances] == [u.id for u in corpora.load("manifest", tmp_path / "out.csv")]
