"""The same recording under another name, on two sides of a fold: what decoded samples show."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from conftest import REAL_SPEECH
from hypothesis import given
from hypothesis import strategies as st

from sertone import audio
from sertone.errors import SertoneError
from sertone.protocol.splits import Fold
from sertone.recipe import Recipe
from sertone.schema import Utterance
from sertone.training.data import duplicates
from sertone.training.data.recordings import Recordings
from sertone.training.runs.crossval import cross_validate

RATE = 16000


def loaded(paths):
    """Utterances of files, and what has read them."""
    utterances = [Utterance(id=path.name, path=path, speaker=path.stem) for path in paths]
    recordings = Recordings(1.0)
    recordings.load(utterances, 1)
    return utterances, recordings


def halves(utterances, *names):
    """A fold with some utterances on its test side."""
    test = [u for u in utterances if u.id in names]
    return Fold("f", train=[u for u in utterances if u not in test], validation=[], test=test)


@pytest.fixture
def corpus(small_demo, tmp_path):
    """Copies of six recordings of speech: [path]."""
    return [
        Path(shutil.copy(path, tmp_path / path.name)) for path in sorted((small_demo / "wav").iterdir())[::7]
    ]


def written(path, folder, name, change=lambda samples: samples, **options):
    samples, rate = soundfile.read(path)
    target = folder / name
    soundfile.write(target, change(samples), rate, **options)
    return target


def tagged(path, folder):
    """With a chunk of text behind the samples."""
    content = bytearray(path.read_bytes()) + b"LIST\x10\x00\x00\x00INFOISFT\x04\x00\x00\x00abc\x00"
    content[4:8] = (len(content) - 8).to_bytes(4, "little")
    (folder / "tagged.wav").write_bytes(content)
    return folder / "tagged.wav"


SAME = {
    "flac": lambda path, folder: written(path, folder, "copy.flac"),
    "24 bits": lambda path, folder: written(path, folder, "copy.wav", subtype="PCM_24"),
    "tag": tagged,
    "stereo": lambda path, folder: written(path, folder, "copy.wav", lambda s: np.stack([s, s], 1)),
    "aiff": lambda path, folder: written(path, folder, "copy.aiff"),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_the_same_samples_in_another_file_are_refused(corpus, tmp_path, change):
    copy = change(corpus[0], tmp_path)
    assert audio.file_hash(copy) != audio.file_hash(corpus[0])
    utterances, recordings = loaded([*corpus, copy])
    with pytest.raises(
        SertoneError, match=f"the same samples.*({copy.name}.*{corpus[0].name}|{corpus[0].name}.*{copy.name})"
    ) as caught:
        duplicates.check_copies([halves(utterances, copy.name)], recordings)
    assert caught.value.code == "audio_leak"
    assert duplicates.check_copies([halves(utterances, corpus[1].name)], recordings) == []


def test_silence_is_no_copy_of_silence(tmp_path):
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, np.zeros(RATE), RATE)
    utterances, recordings = loaded([tmp_path / "a.wav", tmp_path / "b.wav"])
    assert duplicates.check_copies([halves(utterances, "b.wav")], recordings) == []


def coded(**options):
    def change(samples):
        file = io.BytesIO()
        soundfile.write(file, samples, RATE, **options)
        file.seek(0)
        heard, rate = soundfile.read(file)
        return soxr.resample(heard, rate, RATE) if rate != RATE else heard

    return change


CHANGED = {
    "mp3": coded(format="MP3"),
    "opus": coded(format="OGG", subtype="OPUS"),
    "vorbis": coded(format="OGG", subtype="VORBIS"),
    "softer": lambda samples: 0.1 * samples,
    "louder and clipped": lambda samples: np.clip(1.8 * samples / np.abs(samples).max(), -1, 1),
    "upside down": lambda samples: -samples,
    "delayed": lambda samples: np.concatenate([np.zeros(100), samples]),
    "telephone": lambda samples: soxr.resample(soxr.resample(samples, RATE, 8000), 8000, RATE),
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_what_was_encoded_again_or_made_louder_is_reported(corpus, tmp_path, change):
    copy, said = written(corpus[0], tmp_path, "copy.wav", change), []
    utterances, recordings = loaded([*corpus, copy])
    pair = tuple(sorted([corpus[0].name, copy.name]))
    assert duplicates.check_copies([halves(utterances, copy.name)], recordings, said.append) == [pair]
    assert said == [f"fold f: two recordings on two sides sound like copies: {pair[0]} and {pair[1]}"]
    assert duplicates.check_copies([halves(utterances, corpus[1].name)], recordings) == []


@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_a_sketch_knows_no_level_and_sums_up_to_the_power(gain, seed):
    draw = np.random.default_rng(seed)
    samples = np.rint(draw.standard_normal(int(draw.integers(3100, 30000))) * 100).astype(np.int16)
    sketch = duplicates.compute_sketch(samples)
    assert duplicates.compute_sketch((gain * samples).astype(np.int16)) == pytest.approx(
        gain**2 * sketch, rel=1e-3
    )
    assert sketch.mean() == pytest.approx(np.square(samples[::4], dtype=np.float64).mean(), rel=0.02)


def test_a_run_is_refused_or_reports_the_pair(demo_recipe, small_demo, tmp_path):
    """From the corpus to the page."""
    root = tmp_path / "corpus"
    shutil.copytree(small_demo, root)
    with open(root / "metadata.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["speaker"] in ("S1F", "S1M")]
    name = Path(rows[0]["path"]).name
    other = next(row["speaker"] for row in rows if row["speaker"] != rows[0]["speaker"])
    rows.append(rows[0] | {"id": "copy", "path": "wav/copy.flac", "speaker": other})
    with open(root / "metadata.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[-1]))
        writer.writeheader()
        writer.writerows(rows)
    values = demo_recipe().model_dump(mode="json")
    values["data"] |= {"corpus": "manifest", "root": str(root / "metadata.csv")}
    recipe = Recipe.model_validate(values)
    written(root / "wav" / name, root / "wav", "copy.flac")
    with pytest.raises(SertoneError, match="the same samples") as caught:
        cross_validate(recipe, tmp_path / "run", jobs=1, quiet=True)
    assert caught.value.code == "audio_leak" and not list((tmp_path / "run").glob("fold_*/result.json"))
    written(root / "wav" / name, root / "wav", "copy.flac", lambda samples: 0.5 * samples)
    run = cross_validate(recipe, tmp_path / "louder", jobs=1, quiet=True)
    assert (
        "1 pair of recordings on two sides of a fold sound like copies" in (run / "report.html").read_text()
    )


@pytest.mark.real_speech
@pytest.mark.parametrize(
    ("name", "expected"),
    [("emodb4", []), ("ravdess4", [("03-01-03-01-02-01-07.flac", "03-01-03-01-02-02-07.flac")])],
)
def test_real_speech_has_no_copies_but_the_known_one(name, expected):
    """Every pair is compared, those of one speaker too: sentences that are said twice alike."""
    paths = sorted((REAL_SPEECH / name).rglob("*.flac"))
    utterances, recordings = loaded(paths)
    folds = [
        halves(utterances, *(u.id for n, u in enumerate(utterances) if n >> bit & 1)) for bit in range(10)
    ]
    assert duplicates.find_copies(folds, recordings) == expected


@pytest.mark.real_speech
@pytest.mark.parametrize("name", ["emodb4", "ravdess4"])
def test_copies_of_real_speech_are_found(name, tmp_path):
    paths = sorted((REAL_SPEECH / name).rglob("*.flac"))[::40]
    for change in ("mp3", "opus", "softer", "louder and clipped"):
        made = [written(path, tmp_path, f"{path.stem}.wav", CHANGED[change]) for path in paths]
        utterances, recordings = loaded([*paths, *made])
        found = duplicates.find_copies([halves(utterances, *(path.name for path in made))], recordings)
        assert found == sorted((path.name, copy.name) for path, copy in zip(paths, made, strict=True)), change
