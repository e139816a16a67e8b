"""Options of `sertone predict` and `export` that exclude each other are reported before any prediction."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from damage import rehash
from exported import write_hub_folder

import sertone
from sertone.cli import app
from sertone.errors import SertoneError
from sertone.runtime.timeline.plan import TimelineSettings
from sertone.sharing.model_folder import hash_model

RATE = 16000


@pytest.fixture
def talks(tmp_path):
    """Two recordings with the same name in two folders."""
    draw = np.random.default_rng(0)
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        soundfile.write(tmp_path / place / "talk.wav", 0.1 * draw.standard_normal(3 * RATE), RATE)
    return tmp_path


def refuse(*words):
    with pytest.raises(SertoneError) as caught:
        app([*map(str, words)], exit_on_error=False)
    return caught.value


@pytest.mark.parametrize(
    "options, code, said",
    [
        (("--timeline", "--out", "x.csv"), "bad_output", "jsonl"),
        (("--out", "x.jsonl", "--to", "x.html"), "bad_output", "one of the two"),
        (("--resume",), "no_output", "--out"),
        (("--language", "en"), "no_asr", "--asr"),
        (("--asr", "small", "--timeline"), "bad_timeline", "from the audio alone"),
        (("--asr", "small"), "text_not_read", "uses audio only"),
        (("--segmentation", "speech", "--window-s", "3"), "bad_timeline", "speech and a window or hop"),
        (("--speakers", "x.rttm", "--hop-s", "1"), "bad_timeline", "turns and a window or hop"),
        (("--speakers", "x.rttm", "--segmentation", "windows"), "bad_timeline", "turns and a segmentation"),
        (("--to", "nowhere/x.html"), "missing_folder", "no folder nowhere"),
        (("--threads", "-1"), "bad_threads", "-1"),
        (("--out", "nowhere/x.csv"), "missing_folder", "no folder"),
        (("--out", "x.jsonl", "--window-s", "99"), "bad_timeline", "at most the model's 30 s"),
        (("--timeline", "--out", "X.CSV"), "bad_output", "jsonl"),
        (("--channels", "left=ann,right=ann"), "bad_timeline", "ann, ann"),
    ],
)
def test_options_that_do_not_go_together(toy, talks, monkeypatch, options, code, said):
    monkeypatch.chdir(talks)
    error = refuse("predict", toy, "a/talk.wav", *options)
    assert error.code == code and said in str(error)
    assert sorted(path.name for path in talks.iterdir()) == ["a", "b"]


def test_two_recordings_with_one_name_need_two_outputs(toy, talks, capsys):
    target = talks / "{stem}.json"
    files = [talks / place / "talk.wav" for place in ("a", "b")]
    error = refuse("predict", toy, *files, "--to", target)
    assert error.code == "many_files" and all(str(file) in str(error) for file in files)
    assert app(["predict", str(toy), str(files[0]), "--to", str(target)], exit_on_error=False) == 0
    assert json.loads((talks / "talk.json").read_text())["file"] == str(files[0])
    assert capsys.readouterr().out.strip() == str(talks / "talk.json")


def test_turns_belong_to_the_recording_that_they_name(toy, talks):
    """For a single recording the name does not matter: some diarisers use one name for all recordings."""
    (talks / "turns.rttm").write_text("SPEAKER waveform 1 0 2 <NA> <NA> ann <NA> <NA>\n")
    settings = TimelineSettings(rttm=talks / "turns.rttm")
    predictor, files = sertone.load(toy, any_sound=True), [talks / place / "talk.wav" for place in ("a", "b")]
    (alone,) = predictor.predict_files(files[:1], settings=settings, alone=True)
    assert [segment.speaker for segment in alone.segments] == ["ann"]
    assert [answer.code for answer in predictor.predict_files(files, settings=settings)] == ["no_turns"] * 2
    (talks / "turns.rttm").write_text("SPEAKER talk 1 0 2 <NA> <NA> ann <NA> <NA>\n")
    assert [len(answer.segments) for answer in predictor.predict_files(files, settings=settings)] == [1, 1]


def test_resuming_with_other_turns_is_refused(toy, talks):
    turns, out = talks / "turns.rttm", talks / "x.jsonl"
    turns.write_text("SPEAKER talk 1 0 2 <NA> <NA> ann <NA> <NA>\n")
    command = ["predict", toy, talks / "a" / "talk.wav", "--speakers", turns, "--out", out]
    assert app([*map(str, command)], exit_on_error=False) == 0
    assert app([*map(str, command), "--resume"], exit_on_error=False) == 0
    turns.write_text("SPEAKER talk 1 1 2 <NA> <NA> ann <NA> <NA>\n")
    assert refuse(*command, "--resume").code == "other_output"


def test_a_table_with_parts_of_files_is_refused(toy, talks):
    (talks / "table.csv").write_text("path,start_s,end_s\na/talk.wav,0,1\n")
    error = refuse("predict", toy, "--manifest", talks / "table.csv")
    assert error.code == "parts_of_files" and "line 2" in str(error) and "--speakers" in str(error)
    (talks / "table.csv").write_text("path,start_s,end_s\na/talk.wav,,\n")
    assert app(["predict", str(toy), "--manifest", str(talks / "table.csv")], exit_on_error=False) == 0


def test_an_impossible_file_name_is_an_error_row(talks, capsys):
    assert app(["predict", f"{'x' * 300}.wav"], exit_on_error=False) == 1
    assert json.loads(capsys.readouterr().out)["status"] == "error"


def test_impossible_exports_are_refused(talks, monkeypatch):
    folder = write_hub_folder(talks / "folder", use_weighted_layer_sum=True)
    assert refuse("export", f"hf:{folder}", talks / "x", "--force").code == "nothing_to_force"
    assert refuse("export", f"hf:{folder}", talks / "x", "--scores", talks).code == "not_a_run"
    assert refuse("export", f"hf:{folder}", talks / "x", "--coverage", "0.8").code == "not_ours"
    assert not (talks / "x").exists()
    own = talks / "own"
    own.mkdir()
    for name in ("bundle.json", "notes.txt"):
        (own / name).write_text("{}")
    error = refuse("export", f"hf:{folder}", own)
    assert error.code == "not_empty" and "notes.txt" in str(error)
    monkeypatch.chdir(own)
    assert refuse("export", f"hf:{folder}", ".").code == "not_empty"
    assert sorted(path.name for path in own.iterdir()) == ["bundle.json", "notes.txt"]


def test_a_timeline_that_cannot_be_written_is_one_error_row(toy, talks, capsys):
    (talks / "b" / "talk.wav").rename(talks / "b" / "other.wav")
    (talks / "talk.html").mkdir()  # in the way of the first one
    files = [str(talks / "a" / "talk.wav"), str(talks / "b" / "other.wav")]
    command = ["predict", str(toy), *files, "--to", str(talks / "{stem}.html")]
    assert app(command, exit_on_error=False) == 1
    row, written = capsys.readouterr().out.splitlines()
    assert json.loads(row)["code"] == "not_written" and json.loads(row)["file"] == files[0]
    assert written == str(talks / "other.html") and "<html" in (talks / "other.html").read_text()


def test_rows_are_utf_8_with_any_terminal_encoding(toy, talks):
    file = talks / "a" / "talk.wav"
    file = file.rename(file.with_name("süß.wav"))
    command = [sys.executable, "-m", "sertone", "predict", str(toy), str(file)]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True)
    assert done.returncode == 0 and json.loads(done.stdout)["file"] == str(file)


def test_rows_follow_a_link_and_refusals_leave_no_files(toy, talks):
    file, out = str(talks / "a" / "talk.wav"), talks / "R.CSV"
    (talks / "elsewhere").mkdir()
    out.symlink_to(talks / "elsewhere" / "rows.csv")
    for options in ([], ["--resume"]):
        assert app(["predict", str(toy), file, "--out", str(out), *options], exit_on_error=False) == 0
        assert out.is_symlink() and len(out.read_text().splitlines()) == 2
    (talks / "mine.csv").write_text("my own notes")
    assert refuse("predict", toy, file, "--out", talks / "mine.csv", "--resume").code == "not_resumable"
    assert not list(talks.glob("*.journal")) and (talks / "mine.csv").read_text() == "my own notes"


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_the_digest_of_a_model_depends_on_its_files(talks, file):
    """Rows of two models are never mixed. The marker holds the hashes of all files, which loading checks."""
    for name in ("model.safetensors", "tokenizer.json"):
        (talks / name).write_text("{}")
    hashes = {"files": {"model.safetensors": "", "tokenizer.json": ""}}
    (talks / "checkpoint.json").write_text(json.dumps(hashes))
    rehash(talks)
    before = hash_model(talks)
    assert hash_model(talks) == before
    (talks / file).write_text('{"other": 1}')
    assert hash_model(talks) == before, "nothing but markers is read again"
    rehash(talks)
    assert hash_model(talks) != before


@pytest.mark.parametrize("command", ["info nothere", "predict nothere a/talk.wav", "listen nothere"])
def test_a_missing_model_is_reported_before_torch_is_imported(talks, command):
    """A separate process has imported nothing that needs torch."""
    code = "import sys; sys.modules['torch'] = None; from sertone.cli import main; main()"
    line = [sys.executable, "-c", code, *command.split()]
    done = subprocess.run(line, cwd=talks, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error [not_a_checkpoint] no folder nothere")


def test_a_missing_list_is_an_error(talks):
    assert refuse("predict", "--list", talks / "no.txt").code == "missing_list"


def test_unused_texts_are_reported_once(toy, talks):
    (talks / "table.csv").write_text("path,text\na/talk.wav,hello\nb/talk.wav,there\n")
    command = ["predict", str(toy), "--manifest", str(talks / "table.csv"), "--out", str(talks / "x.jsonl")]
    command += ["--any-sound"]
    with pytest.warns(UserWarning, match="uses only audio") as caught:
        assert app([*command, "--strict"], exit_on_error=False) == 0
    rows = [json.loads(line) for line in (talks / "x.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert len([each for each in caught if "uses only audio" in str(each.message)]) == 1


def test_a_closed_pipe_ends_the_command_quietly(toy, talks):
    command = [sys.executable, "-m", "sertone", "predict", str(toy), *[str(talks / "a" / "talk.wav")] * 50]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout and running.stderr and running.stdout.readline().startswith(b"{")
        running.stdout.close()
        assert not running.stderr.read()
    assert running.returncode == 1


def test_window_settings_select_windows():
    assert TimelineSettings(window_s=2.0).uses_windows
    assert TimelineSettings(hop_s=2.0).effective_hop_s == 2.0
    assert not TimelineSettings().uses_windows
    problem = TimelineSettings(segmentation="speech", hop_s=1.0).find_problem()
    assert problem and "one of the two" in problem


@pytest.mark.parametrize("source", [[0.0] * 16000, None, ["a.wav"], (np.zeros(16000), 16000)])
def test_other_types_than_paths_and_samples_are_type_errors(toy, source):
    with pytest.raises(TypeError, match=type(source).__name__):
        sertone.load(toy, any_sound=True).predict(source, 16000)


def test_arguments_of_load_are_checked(toy):
    assert sertone.load(toy, classes="angry,happy=up", any_sound=True).answer_format.class_map == {
        "angry": "angry",
        "happy": "up",
    }
    with pytest.raises(SertoneError, match="cpu or cuda") as caught:
        sertone.load(toy, device="tpu", any_sound=True)  # pyright: ignore[reportArgumentType]
    assert caught.value.code == "no_device"
    answer = sertone.load(toy, any_sound=True).predict(np.zeros((2, 16000)), 16000)
    assert answer.code == "bad_channels" and "transpose" in answer.message


@pytest.mark.parametrize("text", ['File type = "ooTextFile"\n', "start,end\n0,1\n", "speaker x 1 0 1\n"])
def test_another_file_than_rttm_is_refused(toy, talks, text):
    (talks / "x.rttm").write_text(text)
    assert refuse("predict", toy, talks / "a" / "talk.wav", "--speakers", talks / "x.rttm").code == "bad_rttm"
    (talks / "x.rttm").write_text(";; nobody\nSPKR-INFO talk 1 <NA> <NA> <NA> unknown ann <NA> <NA>\n")
    assert app(["predict", str(toy), str(talks / "a" / "talk.wav"), "--speakers", str(talks / "x.rttm")]) == 0


def test_a_list_may_come_from_find(toy, talks, capsys):
    files = [str(talks / place / "talk.wav") for place in ("a", "b")]
    (talks / "list").write_bytes(b"".join(name.encode() + b"\0" for name in files))
    assert app(["predict", str(toy), "--list", str(talks / "list")], exit_on_error=False) == 0
    assert [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()] == files


def test_the_last_of_several_recordings_does_not_count_as_the_only_one(toy, talks):
    (talks / "b" / "talk.wav").rename(talks / "b" / "other.wav")
    (talks / "t.rttm").write_text("SPEAKER talk 1 0 2 <NA> <NA> ann <NA> <NA>\n")
    out, files = talks / "x.jsonl", (talks / "a" / "talk.wav", talks / "b" / "other.wav")
    command = ["predict", toy, *files, "--speakers", talks / "t.rttm", "--out", out]
    assert app([*map(str, command)], exit_on_error=False) == 1
    whole = out.read_text()
    out.write_text(whole.splitlines(keepends=True)[0])  # as after a kill
    assert app([*map(str, command), "--resume"], exit_on_error=False) == 1
    assert out.read_text() == whole and "no_turns" in whole
    assert refuse("predict", toy, files[0], *command[4:], "--resume").code == "other_output"


def test_inputs_are_never_overwritten(toy, talks):
    (talks / "talk.rttm").write_text("SPEAKER talk 1 0 2 <NA> <NA> ann <NA> <NA>\n")
    before = (talks / "talk.rttm").read_text()
    command = ["predict", toy, talks / "a" / "talk.wav", "--speakers", talks / "talk.rttm"]
    assert refuse(*command, "--to", talks / "{stem}.rttm").code == "bad_output"
    (talks / "a" / "talk.wav").rename(talks / "a" / "talk.txt")
    assert (
        refuse("predict", toy, talks / "a" / "talk.txt", "--to", talks / "a" / "talk.txt").code
        == "bad_output"
    )
    assert (talks / "talk.rttm").read_text() == before
    (talks / "x.csv.journal").write_text("precious")
    assert refuse("predict", toy, talks / "a" / "talk.txt", "--out", talks / "x.csv").code == "output_exists"
    assert (talks / "x.csv.journal").read_text() == "precious"
    (talks / "y.csv").symlink_to(talks / "y.csv")
    assert refuse("predict", toy, talks / "a" / "talk.txt", "--out", talks / "y.csv").code == "bad_output"
    assert refuse(*command[:3], "--speakers", "no.rttm", "--out", talks / "z.jsonl").code == "missing_rttm"


def test_equal_settings_resume_whichever_options_give_them(toy, talks):
    command = ["predict", str(toy), str(talks / "a" / "talk.wav"), "--out", str(talks / "x.jsonl")]
    assert app([*command, "--window-s", "2"], exit_on_error=False) == 0
    same = ["--segmentation", "windows", "--window-s", "2", "--hop-s", "2"]
    assert app([*command, *same, "--resume"], exit_on_error=False) == 0
    assert refuse(*command, "--window-s", "3", "--resume").code == "other_output"
