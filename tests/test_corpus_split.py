"""`corpora check` refuses what `crossval` refuses, with the same codes; many equal problems are one line."""

import csv
import json

import pytest
from conftest import TINY_MODEL

from sertone import cli, corpora
from sertone.cli import reader_options
from sertone.corpora._report import MAX_LINES, format_problems
from sertone.errors import SertoneError
from sertone.labels import find_unused_labels, resolve_class_map, resolve_raw_labels
from sertone.recipe import DataConfig, Recipe
from sertone.schema import Problem
from sertone.training.experiment.experiment import prepare


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Forty tones to write tables about."""
    root = tmp_path_factory.mktemp("clips")
    corpora.fake("manifest", root)
    return sorted((root / "clips").glob("*.wav"))


def table(tmp_path, clips, rows):
    """A manifest with a row for every (speaker, emotion)."""
    path = tmp_path / "m.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "speaker", "emotion", "split", "session"])
        for clip, row in zip(clips, rows, strict=False):
            writer.writerow([clip, *row])
    return path


def recipe(path, classes="all", **protocol):
    return Recipe.model_validate(
        {
            "data": {"corpus": "manifest", "root": str(path), "classes": classes},
            "protocol": {"split": "grouped_k_fold", "folds": 5} | protocol,
            "model": TINY_MODEL,
            "train": {"batch_size": 8},
        }
    )


SOUND = [(f"s{n % 5}", ("sad", "Joy")[n // 5 % 2]) for n in range(40)]
TABLES = {
    "sound": (SOUND, [], None),
    "one sample": ([*SOUND[:-1], ("s4", "awe")], [], "missing_class"),
    "one class by one speaker": ([(s, "awe" if s == "s2" else e) for s, e in SOUND], [], "missing_class"),
    "one speaker": ([("s1", e) for _, e in SOUND], [], "too_few_speakers"),
    "four speakers": ([("s0" if s == "s4" else s, e) for s, e in SOUND], [], "too_few_speakers"),
    "four speakers, four folds": ([("s0" if s == "s4" else s, e) for s, e in SOUND], ["--folds", "4"], None),
    "one class": ([(s, "sad") for s, _ in SOUND], [], "no_classes"),
    "no class": (SOUND, ["--classes", "rage=angry,bliss=happy"], "no_classes"),
    "a class without a sample": (SOUND, ["--classes", "sad,joy,rage"], "missing_class"),
    "no sessions": (SOUND, ["--split", "leave_one_session_out"], "no_sessions"),
    "no official split": (SOUND, ["--split", "official"], "no_official_split"),
    "a speaker on two sides": (
        [(*row, ("train", "test")[n % 2]) for n, row in enumerate(SOUND)],
        ["--split", "official"],
        "speaker_leak",
    ),
    "a class missing in the official training side": (
        [
            (*(("s4", "awe") if n == 4 else row), "test" if row[0] == "s4" else "train")
            for n, row in enumerate(SOUND)
        ],
        ["--split", "official"],
        "missing_class",
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_check_refuses_what_crossval_refuses(name, tmp_path, clips, capsys):
    rows, options, code = TABLES[name]
    path = table(tmp_path, clips, rows)
    given = dict(zip(options[::2], options[1::2], strict=True))
    classes = reader_options.parse_classes(given.pop("--classes", "all"))
    status = cli.app(["corpora", "check", "manifest", str(path), "--json", *options])
    report = json.loads(capsys.readouterr().out)
    errors = [problem for problem in report["problems"] if problem["severity"] == "error"]
    assert status == (code is not None) and {problem["code"] for problem in errors} == {code} - {None}
    asked = recipe(path, classes, **{key.removeprefix("--"): value for key, value in given.items()})
    if code is None:
        assert len(prepare(asked).folds) == int(given.get("--folds", 5))
        return
    with pytest.raises(SertoneError) as caught:
        prepare(asked)
    assert caught.value.code == code and str(caught.value) in [problem["message"] for problem in errors]


@pytest.mark.parametrize("name", [name for name in corpora.list_names() if name != "demo"])
def test_miniatures_are_fit_for_the_recipes_of_their_corpus(name, tmp_path, capsys):
    corpora.fake(name, tmp_path / "mini")
    assert cli.app(["corpora", "check", name, str(tmp_path / "mini")]) == 0
    printed = capsys.readouterr().out
    assert "nothing that would change a result" in printed and "checked for  classes: " in printed
    assert "None" not in printed and "error" not in printed


def test_unknown_speakers_are_judged_alike(tmp_path, clips, capsys):
    for n, clip in enumerate(clips):
        folder = tmp_path / "speech" / ("sad", "joy")[n % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / clip.name).symlink_to(clip)
    cli.app(["corpora", "check", "audiofolder", str(tmp_path / "speech"), "--json"])
    problems = json.loads(capsys.readouterr().out)["problems"]
    errors = {problem["code"] for problem in problems if problem["severity"] == "error"}
    data = {"corpus": "audiofolder", "root": str(tmp_path / "speech"), "classes": "all"}
    asked = recipe("", "all").model_copy(update={"data": DataConfig.model_validate(data)})
    try:
        prepare(asked)
        refused = set()
    except SertoneError as error:
        refused = {error.code}
    assert errors == refused


def test_ratings_alone_are_a_corpus_too(tmp_path, clips, capsys):
    lines = [f"{clip},s{n % 5},{n % 7}" for n, clip in enumerate(clips)]
    (tmp_path / "m.csv").write_text("\n".join(["path,speaker,valence", *lines]) + "\n")
    assert cli.app(["corpora", "check", "manifest", str(tmp_path / "m.csv")]) == 0
    assert "valence 40" in capsys.readouterr().out


def test_many_equal_problems_are_one_line(tmp_path, capsys):
    rows = [f"clips/{n}.wav,s{n % 7},{('sad', 'joy')[n % 2]}" for n in range(10_000)]
    (tmp_path / "m.csv").write_text("\n".join(["path,speaker,emotion", *rows]) + "\n")
    assert cli.app(["corpora", "check", "manifest", str(tmp_path / "m.csv")]) == 1
    printed = capsys.readouterr().out.splitlines()
    (line,) = [line for line in printed if "[missing_file]" in line]
    assert line.startswith("error [missing_file] 10000 times, such as ") and "clips/0.wav" in line
    assert len(printed) < 25 and max(map(len, printed)) < 400


def test_a_few_lines_for_every_code():
    problems = [Problem("bad_number", f"row {n}", f"{n} is no number") for n in range(100)]
    problems += [Problem("bad_split", "row 7", "'holdout'"), Problem("rare_label", "x", "1 x awe", "note")]
    lines = format_problems(problems)
    assert lines[0] == "error [bad_number] row 0: 0 is no number" and len(lines) == MAX_LINES + 3
    assert lines[MAX_LINES].startswith("error [bad_number] and 95 more of this kind; --json")
    assert lines[-2:] == ["error [bad_split] row 7: 'holdout'", "note [rare_label] x: 1 x awe"]


WRITTEN = {
    "Angry": "angry",
    "ANGER": "angry",
    "Joy": "happy",
    "Annoyed": "annoyed",
    "N": "neutral",
    "xxx": "other",
}


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ({"Angry": "a", "Joy": "b"}, {"angry": "a", "happy": "b"}),
        ({"ANGRY": "a", "joy": "b"}, {"angry": "a", "happy": "b"}),
        ({"anger": "a", "happiness": "b"}, {"angry": "a", "happy": "b"}),
        ({"Annoyed": "a", "n": "b"}, {"annoyed": "a", "neutral": "b"}),
        ({"angry": "a", "Anger": "a"}, {"angry": "a"}),
        ({"sleepy": "a"}, {"sleepy": "a"}),
    ],
)
def test_class_maps_take_labels_as_they_are_written(classes, expected):
    assert resolve_class_map(classes, WRITTEN) == expected


def test_an_exact_label_goes_before_one_in_another_case():
    written = {"n": "nervous", "N": "neutral"}
    assert resolve_raw_labels({"n": "x", "N": "y"}, written) == {"nervous": "x", "neutral": "y"}
    assert resolve_raw_labels({"neutral": "x"}, {"neutral": "calm", "N": "neutral"}) == {"neutral": "x"}


def test_one_emotion_in_two_classes_is_refused():
    with pytest.raises(SertoneError, match="happy and Joy are both read as happy") as caught:
        resolve_class_map({"happy": "a", "Joy": "b"}, WRITTEN)
    assert caught.value.code == "ambiguous_classes"


def test_labels_in_no_class_are_counted(tmp_path, clips, capsys):
    rows = [(s, e if n else "Awe") for n, (s, e) in enumerate(SOUND)]
    path, lines = table(tmp_path, clips, rows), []
    classes = {"SAD": "low", "joyy": "high", "joy": "high"}
    experiment = prepare(recipe(path, classes), say=lines.append)
    assert experiment.class_map == {"sad": "low", "joyy": "high", "happy": "high"}
    assert len(experiment.utterances) == 39
    assert "left out: 1 of 40 labelled utterances, in no class: awe 1" in lines
    assert "data.classes names labels that no utterance has: joyy (did you mean Joy?)" in lines
    assert find_unused_labels(classes, {"Joy": "happy", "sad": "sad"}) == ["joyy (did you mean Joy?)"]
    cli.app(["corpora", "check", "manifest", str(path), "--classes", "SAD=low,joyy=high,joy=high"])
    printed = capsys.readouterr().out
    assert "by emotion in no class\n  awe 1" in printed and "note [unused_label]" in printed


@pytest.mark.parametrize(
    ("written", "classes", "note"),
    [
        (("joy", "happiness"), {"joy": "joy"}, "joy also takes happiness 10"),
        (("joy", "happiness"), {"Joy": "high"}, "Joy also takes happiness 10"),
        (("happy", "joy"), {"happy": "happy"}, "happy also takes joy 10"),
        (("joy", "hap"), {"happy": "happy"}, "happy takes hap 10, joy 10"),
        (("joy", "Joy"), {"happiness": "happy"}, "happiness takes Joy 10, joy 10"),
        (("joy", "Joy"), {"happy": "happy"}, ""),
        (("joy", "happiness"), {"joy": "high", "happiness": "high"}, ""),
        (("joy", "bliss"), {"joy": "high", "bliss": "bliss"}, ""),
    ],
)
def test_words_that_a_class_takes_unnamed_are_said(tmp_path, clips, capsys, written, classes, note):
    rows = [(f"s{n % 5}", (*written, "neutral", "Neutral")[n // 5 % 4]) for n in range(40)]
    path, lines = table(tmp_path, clips, rows), []
    classes = classes | {"neutral": "neutral"}
    prepare(recipe(path, classes), say=lines.append)
    said = [line for line in lines if "takes" in line]
    assert said == ([f"data.classes: {note}"] if note else [])
    chosen = ",".join(f"{label}={name}" for label, name in classes.items())
    cli.app(["corpora", "check", "manifest", str(path), "--classes", chosen])
    printed = [line for line in capsys.readouterr().out.splitlines() if "merged_label" in line]
    assert printed == ([f"note [merged_label] (folds): data.classes: {note}"] if note else [])
