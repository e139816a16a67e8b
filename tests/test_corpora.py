"""Every corpus: its miniature is read back, IEMOCAP has the published counts, the check finds all problems."""

import json
import shutil
from collections import Counter
from pathlib import Path

import polars
import pytest
from conftest import REAL_SPEECH

from sertone import cli, corpora
from sertone.corpora._check import check
from sertone.corpora.manifest import load_recordings
from sertone.errors import SertoneError
from sertone.labels import CLASS_MAPS, EMOTIONS, make_emotion_labels, normalise_transcript, resolve_class_map
from sertone.schema import Utterance

FOUR = ("neutral", "happy", "angry", "sad")


@pytest.mark.parametrize("name", corpora.list_names())
def test_contract(name, tmp_path):
    sheet = corpora.load_sheet(name)
    assert sheet.TITLE and sheet.LICENCE and len(sheet.__doc__) > 200
    assert set(sheet.EMOTIONS.values()) <= set(EMOTIONS)
    sheet.fake(tmp_path)
    utterances = list(corpora.load_utterances(name, tmp_path))
    assert utterances == list(corpora.load_utterances(name, tmp_path))
    assert len({u.id for u in utterances}) == len(utterances) > 20
    assert len({u.speaker for u in utterances}) >= 4
    assert all(u.path.is_file() and isinstance(u, Utterance) for u in utterances)
    unlabelled = [u for u in utterances if "emotion" not in u.labels]
    assert all(name == "manifest" or u.labels.get("partition") == "Test3" for u in unlabelled)
    report = check(name, tmp_path, "four")
    assert report.is_sound, report.problems
    assert report.utterances == len(utterances)
    assert report.voted == sum(bool(u.votes) for u in utterances)
    assert report.texts == sum(bool(u.text) for u in utterances)
    assert all(report.rated[name] == sum(name in u.labels for u in utterances) for name in report.rated)
    assert all(sum(u.votes.values()) == pytest.approx(1) for u in utterances if u.votes)
    assert set(report.by_class) == set(FOUR) and all(report.by_class.values())
    assert sum(report.by_speaker.values()) == sum(report.by_class.values())
    assert report.hours > 0


@pytest.mark.parametrize("name", corpora.list_names())
def test_export_is_read_back_by_manifest(name, tmp_path, capsys):
    corpora.load_sheet(name).fake(tmp_path / "corpus")
    out = tmp_path / "out.csv"
    assert cli.app(["corpora", "export", name, str(tmp_path / "corpus"), str(out)]) == 0
    before = list(corpora.load_utterances(name, tmp_path / "corpus"))
    after = list(corpora.load_utterances("manifest", out))
    for a, b in zip(before, after, strict=True):
        assert a.path.samefile(b.path)
        assert (a.id, a.speaker, a.session, a.text) == (b.id, b.speaker, b.session, b.text)
        assert (a.split, a.known_speaker) == (b.split, b.known_speaker)
        expected = {k: v for k, v in a.labels.items() if k != "raw_emotion"}
        assert {k: v for k, v in b.labels.items() if k != "raw_emotion"} == expected
        assert b.votes == pytest.approx(a.votes)


@pytest.mark.parametrize("name", corpora.list_names())
def test_a_missing_or_wrong_root_is_an_error(name, tmp_path):
    for root in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(SertoneError):
            list(corpora.load_utterances(name, root))


@pytest.fixture(scope="module")
def iemocap(tmp_path_factory):
    root = tmp_path_factory.mktemp("iemocap")
    corpora.load_sheet("iemocap").fake(root, True)
    return root


def test_iemocap_has_the_published_counts(iemocap):
    report = check("iemocap", iemocap, "four")
    assert report.utterances == 10039
    assert report.by_label == {
        "xxx": 2507, "fru": 1849, "neu": 1708, "ang": 1103, "sad": 1084, "exc": 1041, "hap": 595,
        "sur": 107, "fea": 40, "oth": 3, "dis": 2,
    }  # fmt: skip
    assert report.by_class == {"neutral": 1708, "happy": 1636, "angry": 1103, "sad": 1084}
    assert [sum(s.values()) for s in report.by_session.values()] == [1085, 1023, 1151, 1031, 1241]
    assert report.by_session["Session5"] == {"neutral": 384, "happy": 442, "angry": 170, "sad": 245}
    assert list(report.by_speaker.values()) == [528, 557, 481, 542, 522, 629, 528, 503, 590, 651]
    assert report.by_style == {"scripted": 5255, "improvised": 4784}
    assert {p.code for p in report.problems} == {"rating_off_scale"} and len(report.problems) == 5
    assert report.is_sound


def test_iemocap_talkers_and_texts(iemocap):
    utterances = list(corpora.load_utterances("iemocap", iemocap))
    four = [u for u in utterances if u.labels["raw_emotion"] in ("neu", "hap", "exc", "ang", "sad")]
    assert sum(u.speaker[-1] != u.id[5] for u in four) == 2750
    assert len({u.id.rsplit("_", 1)[0] for u in utterances}) == 151
    assert Counter(u.labels["style"] for u in four) == {"improvised": 2943, "scripted": 2588}
    assert all(u.labels["gender"] == {"F": "female", "M": "male"}[u.id[-4]] for u in utterances)
    assert all(u.text and "\t" not in u.text and not u.text.endswith("\r") for u in utterances)
    assert sum(u.text.endswith("So I said]: café\x85 and tea.") for u in utterances) == 1
    assert sum("[LAUGHTER]" in u.text for u in utterances) == 120
    assert not any("XX" in u.id or u.id.startswith(".") for u in utterances)


def test_one_line_in_an_older_encoding_does_not_garble_the_others(tmp_path):
    """UTF-8 with a byte order mark, and one line in Latin-1 between the others."""
    corpora.load_sheet("iemocap").fake(tmp_path)
    ids = [u.id for u in corpora.load_utterances("iemocap", tmp_path)]
    dialogue = Counter(name.rsplit("_", 1)[0] for name in ids).most_common(1)[0][0]
    names = [name for name in ids if name.startswith(dialogue)][:3]
    sentences = ["café, “so”", "naïve café", "déjà vu"]
    lines = [f"{name} [000.0000-001.0000]: {text}" for name, text in zip(names, sentences, strict=True)]
    first, second, third = lines
    (path,) = tmp_path.glob(f"Session*/dialog/transcriptions/{dialogue}.txt")
    rows = [first.encode("utf-8-sig"), second.encode("latin-1"), third.encode(), b""]
    path.write_bytes(b"\r\n".join(rows))
    texts = {u.id: u.text for u in corpora.load_utterances("iemocap", tmp_path)}
    assert [texts[name] for name in names] == sentences


def write(table, path):
    if path.suffix in (".csv", ".tsv"):
        table.write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    else:
        getattr(table, {".jsonl": "write_ndjson", ".parquet": "write_parquet"}[path.suffix])(path)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_manifest_formats(tmp_path, tone, suffix):
    tone("a.wav")
    rows = {
        "path": ["a.wav", "a.wav", "a.wav"],
        "speaker": ["03", "03", "04"],
        "emotion": ["Anger", "joy", None],
        "valence": ["1.5", "2", None],
        "start_s": ["0", "0.5", "0"],
        "end_s": ["0.5", "1.0", None],
        "text": ["Hello, you", None, "x"],
    }
    table, path = polars.DataFrame(rows), tmp_path / f"m.{suffix}"
    write(table, path)
    first, second, third = corpora.load_utterances("manifest", path)
    assert first.path == tmp_path / "a.wav" and first.speaker == "03"
    assert first.labels == {"emotion": "angry", "raw_emotion": "Anger", "valence": 1.5}
    assert second.labels["emotion"] == "happy" and (second.start_s, second.end_s) == (0.5, 1.0)
    assert third.labels == {} and third.end_s is None
    assert len({first.id, second.id, third.id}) == 3
    with pytest.raises(SertoneError, match="whole recordings"):
        load_recordings(path)
    write(table.drop("start_s", "end_s"), path)
    assert load_recordings(path) == [
        (tmp_path / "a.wav", "Hello, you", None),
        (tmp_path / "a.wav", None, None),
        (tmp_path / "a.wav", "x", None),
    ]


def manifest(tmp_path, text):
    (tmp_path / "m.csv").write_text(text)
    return tmp_path / "m.csv"


@pytest.mark.parametrize(
    "text, code",
    [
        ("path,emotion\na.wav,sad\n", "missing_column"),
        ("name,speaker\na.wav,1\n", "missing_column"),
        ("", "no_rows"),
        ("path,speaker\n", "no_rows"),
    ],
)
def test_tables_that_are_not_a_manifest(tmp_path, text, code):
    with pytest.raises(SertoneError) as caught:
        list(corpora.load_utterances("manifest", manifest(tmp_path, text)))
    assert caught.value.code == code


def test_a_table_to_predict_needs_no_more_than_a_path(tmp_path):
    rows = "file,text,duration_s\na.wav, Well ,1.5\n/b/c.wav,,\n"
    expected = [(tmp_path / "a.wav", "Well", 1.5), (Path("/b/c.wav"), None, None)]
    assert load_recordings(manifest(tmp_path, rows)) == expected
    (tmp_path / "m.csv").rename(tmp_path / "metadata.csv")
    assert len(load_recordings(tmp_path)) == 2


@pytest.mark.parametrize(
    "text, code, message",
    [
        ("name,text\na.wav,x\n", "missing_column", "a column path; --columns path=name"),
        ("path,text\na.wav,x\n,y\n", "missing_cell", "line 3: no path given"),
        ("path,duration_s\na.wav,long\n", "bad_number", "line 2: duration_s is 'long'"),
        ("path\n", "no_rows", "one row per utterance"),
        ("path\na.wav,b\n", "not_a_manifest", "line 2 has more cells"),
    ],
)
def test_tables_that_cannot_be_predicted(tmp_path, text, code, message):
    with pytest.raises(SertoneError, match=message) as caught:
        load_recordings(manifest(tmp_path, text))
    assert caught.value.code == code


def test_the_check_lists_every_problem(tmp_path, tone, capsys):
    path, twin = tone("a.wav"), tmp_path / "twin.wav"
    shutil.copy(path, twin)
    (tmp_path / "noise.wav").write_bytes(b"no sound at all")
    tone("d.wav", 2.0)
    tone("e.wav", 2.5)
    tone("short.wav", 0.02)
    rows = [
        "id,path,speaker,emotion,start_s,end_s,valence,duration_s,split",
        "1,a.wav,s1,sad,,,,,",
        "2,twin.wav,s2,sad,,,,,",
        "3,missing.wav,s1,sad,,,,,",
        "4,noise.wav,s1,sad,,,,,",
        "5,d.wav,s1,sad,1.0,9.0,,,",
        "5,d.wav,s1,happy,0,1,,,",
        "6,d.wav,s1,sad,0,1,,,",
        "7,e.wav,s1,sad,,,high,2.0,",
        "8,,s1,sad,,,,,",
        "10,short.wav,s1,sad,,,,,",
        "9,e.wav,s1,sad,0.5,1,,,holdout",
    ]
    source = manifest(tmp_path, "\n".join(rows) + "\n")
    status = cli.app(["corpora", "check", "manifest", str(source), "--json"])
    report = json.loads(capsys.readouterr().out)
    codes = Counter(problem["code"] for problem in report["problems"])
    assert status == 1
    assert codes == {
        "same_audio": 1,
        "missing_file": 1,
        "not_audio": 1,
        "bad_segment": 1,
        "too_short": 1,
        "duplicate_id": 1,
        "conflicting_labels": 1,
        "bad_number": 1,
        "other_duration": 1,
        "missing_cell": 1,
        "bad_split": 1,
        "too_few_speakers": 1,
    }
    assert all(problem["path"] and problem["message"] for problem in report["problems"])
    expected = "corpus root release utterances voted texts rated hours speakers unknown_speakers by_label by_class in_no_class by_session by_speaker by_style checked_for problems"
    assert list(report) == expected.split()
    with pytest.raises(SertoneError):
        list(corpora.load_utterances("manifest", source))


def test_unknown_labels_are_reported_or_end_the_reading(tmp_path):
    corpora.load_sheet("emodb").fake(tmp_path)
    (tmp_path / "wav" / "03a01Na.wav").rename(tmp_path / "wav" / "03a01Xa.wav")
    assert [p.code for p in check("emodb", tmp_path).problems] == ["unknown_label"]
    with pytest.raises(SertoneError, match="'X'"):
        list(corpora.load_utterances("emodb", tmp_path))


REAL = [("emodb", "emodb4", (79, 71, 127, 62)), ("ravdess", "ravdess4", (96, 192, 192, 192))]


@pytest.mark.real_speech
@pytest.mark.parametrize("name, folder, counts", REAL)
def test_real_recordings(name, folder, counts):
    report = check(name, REAL_SPEECH / folder, "four")
    assert tuple(report.by_class.values()) == counts
    twins = [p for p in report.problems if p.code == "same_audio"]
    assert len(report.problems) == len(twins) == (name == "ravdess")
    assert all("Actor_07" in p.path for p in twins)


def test_class_maps():
    assert resolve_class_map("four", {})["excited"] == "happy"
    labels = {"awe", "sad", "neutral", "other", "no_agreement"}
    assert list(resolve_class_map("all", {e: e for e in labels})) == ["neutral", "sad", "awe"]
    assert resolve_class_map({"sad": "low"}, {e: e for e in labels}) == {"sad": "low"}
    with pytest.raises(SertoneError, match=", ".join(CLASS_MAPS)):
        resolve_class_map("five", {})


def test_spoken_text():
    assert normalise_transcript("[LAUGHTER] Well,  I'm   OK -- [garbage] yes!") == "well i'm ok yes"
    assert normalise_transcript("Schöne Grüße") == "schöne grüße"


def test_emotion_labels_keep_the_raw_word():
    assert make_emotion_labels("W", {"W": "angry"}, "x", print) == {"emotion": "angry", "raw_emotion": "W"}


def test_json_lines_whose_columns_come_late(tmp_path):
    rows = [{"path": f"{n}.wav", "speaker": n} for n in range(150)]
    rows[149] |= {"emotion": "sad", "speaker": "07b"}
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    utterances = list(corpora.load_utterances("manifest", path))
    assert utterances[149].labels["emotion"] == "sad"
    assert [u.speaker for u in utterances][148:] == ["148", "07b"]
    path.write_text('{"path": "a.wav", "speaker": "1", "emotion": {"sad": 1}}')
    with pytest.raises(SertoneError, match="line 1 is not a flat object"):
        list(corpora.load_utterances("manifest", path))


def test_nothing_real_is_overwritten(tmp_path):
    table = manifest(tmp_path, "path,speaker\na.wav,1\n")
    for command in (["fake", "emodb", str(tmp_path)], ["export", "manifest", str(table), str(table)]):
        with pytest.raises(SertoneError) as caught:
            cli.app(["corpora", *command])
        assert caught.value.code == "not_empty" and table.read_text() == "path,speaker\na.wav,1\n"


def test_the_size_of_a_miniature_can_be_chosen_for_corpora_without_a_fixed_size(tmp_path):
    cli.app(["corpora", "fake", "msp_podcast", str(tmp_path / "x"), "--segments", "23"])
    labelled = [u for u in corpora.load("msp_podcast", tmp_path / "x") if "emotion" in u.labels]
    assert len(labelled) == 23
    for name, number in (("emodb", "3"), ("msp_podcast", "0")):
        with pytest.raises(
            SertoneError, match=rf"{number} segments of {name}.*of msp_podcast only"
        ) as caught:
            cli.app(["corpora", "fake", name, str(tmp_path / "y"), "--segments", number])
        assert caught.value.code == "no_choice_of_size" and not (tmp_path / "y").exists()


def test_a_damaged_iemocap_is_read_to_its_end(tmp_path):
    corpora.load_sheet("iemocap").fake(tmp_path)
    intact = check("iemocap", tmp_path)
    shutil.rmtree(tmp_path / "Session3")
    first, second = sorted((tmp_path / "Session1/dialog/EmoEvaluation").glob("Ses*.txt"))[:2]
    first.unlink()
    second.write_text("% nothing\n")
    report = check("iemocap", tmp_path)
    codes = Counter(p.code for p in report.problems if p.severity == "error")
    assert codes == {"missing_session": 1, "missing_evaluation": 1, "empty_evaluation": 1}
    assert 0 < report.utterances < intact.utterances - 40 and not report.is_sound


def test_rows_with_too_many_cells_and_damaged_parquet(tmp_path):
    with pytest.raises(SertoneError, match="line 2 has more cells"):
        list(corpora.load_utterances("manifest", manifest(tmp_path, "path,speaker\na.wav,1,x\n")))
    (tmp_path / "m.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(SertoneError) as caught:
        list(corpora.load_utterances("manifest", tmp_path / "m.parquet"))
    assert caught.value.code == "not_a_manifest"


def test_tables_as_spreadsheets_write_them(tmp_path):
    text = "path;speaker;emotion;gender;text\na.wav;1;joy;W;Grüß Gott, du\n"
    (utterance,) = corpora.load_utterances("manifest", manifest(tmp_path, text))
    assert utterance.labels["emotion"] == "happy" and utterance.labels["gender"] == "female"
    assert utterance.text == "Grüß Gott, du"
    (tmp_path / "m.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(SertoneError, match="save the table as CSV UTF-8"):
        list(corpora.load_utterances("manifest", tmp_path / "m.csv"))


def problems_of(capsys, *arguments):
    """Return the problems of `corpora check` by code, and its exit status."""
    status = cli.app(["corpora", "check", *map(str, arguments), "--json"])
    report = json.loads(capsys.readouterr().out)
    return {problem["code"]: problem for problem in report["problems"]}, status


def test_the_check_looks_at_labels(tmp_path, tone, capsys):
    for name in "abcd":
        tone(f"{name}.wav", 0.5 + ord(name) / 1000)
    rows = ["a.wav,1,hapiness,x", "b.wav,1,sad,f", "c.wav,1,sad,f", "d.wav,1,,m"]
    table = manifest(tmp_path, "path,speaker,emotion,gender\n" + "\n".join(rows) + "\n")
    codes, status = problems_of(capsys, "manifest", table)
    assert set(codes) == {"too_few_speakers", "rare_label", "missing_label", "unknown_gender"} and status == 1
    assert codes["too_few_speakers"]["severity"] == "error"
    assert "'happiness'" in codes["rare_label"]["message"]
    assert codes["too_few_speakers"]["message"].startswith("1 speaker;")
    bare = "path,speaker,feeling\na.wav,1,sad\nb.wav,2,happy\n"
    codes, _ = problems_of(capsys, "manifest", manifest(tmp_path, bare))
    assert [code for code, p in codes.items() if p["severity"] == "error"] == ["no_classes"]
    assert "--columns emotion=NAME" in codes["no_classes"]["message"]


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("m.csv", "path,speaker,emotion,speaker\na.wav,x,sad,y\n", "column_twice"),
        ("m.tsv", "path\tpath\tspeaker\na.wav\tb.wav\tx\n", "column_twice"),
        ("m.jsonl", '{"path": "a.wav", "speaker": "x", "speaker": "y"}\n', "column_twice"),
    ],
)
def test_a_repeated_column_is_refused(tmp_path, name, content, code):
    (tmp_path / name).write_text(content)
    with pytest.raises(SertoneError, match=r"speaker|path") as caught:
        list(corpora.load_utterances("manifest", tmp_path / name))
    assert caught.value.code == code
