"""Thousands of damaged sound files: none crashes, hangs, or is read as if nothing were missing."""

import contextlib
from collections import Counter

import numpy as np
import pytest
from apart import HERE, verdict
from sounds import FORMATS, MUTATIONS, mutants, write

import sertone
from sertone import audio
from sertone.audio import SEGMENT_TOLERANCE_S
from sertone.utils.processes import ChildDiedError, ChildStuckError, count_cores, run_parallel

pytest.importorskip("av")
LIMIT_S = 60.0


def read_all(folder, files):
    """Read files in child processes; return the count of every outcome, and the files with a wrong one."""
    whole = {name: verdict(write(folder / f"intact.{name}", name)) for name in FORMATS}
    assert all(result.status == "ok" for result in whole.values()), whole
    counts, faults = Counter(), []
    calls = ((path, name, damage) for path, name, damage in files)
    running = run_parallel([HERE] * min(2, count_cores()), verdict, calls, timeout_s=LIMIT_S)
    with contextlib.closing(running):
        for (path, name, damage), future in running:
            outcome = classify(future, whole[name])
            counts[outcome] += 1
            if outcome not in ("ok", "warning", "error"):
                faults.append((path.name, damage, outcome))
            path.unlink()
    return counts, faults


def classify(future, intact):
    """Return `ok`, `warning`, `error`, `crash`, `hang`, `traceback`, or `lost`: shorter without a warning."""
    try:
        result = future.result()
    except ChildStuckError:
        return "hang"
    except ChildDiedError:
        return "crash"
    return "lost" if result.status == "ok" and is_shorter(result, intact) else result.status


def is_shorter(result, intact):
    """Return whether audio is missing; where the damage changed the rate, the samples are compared."""
    if result.rate == intact.rate:
        return result.samples / result.rate < intact.samples / intact.rate - SEGMENT_TOLERANCE_S
    return result.samples * result.channels < intact.samples - SEGMENT_TOLERANCE_S * intact.rate


def test_damaged_files_are_reported(tmp_path):
    """This covers every format and every damage, a few times."""
    counts, faults = read_all(tmp_path, mutants(tmp_path, 2 * len(FORMATS) * len(MUTATIONS)))
    assert not faults and counts.total() == 144
    assert counts["warning"] > 20 and counts["error"] > 20, counts


@pytest.mark.slow
def test_three_thousand_damaged_files_are_reported(tmp_path):
    counts, faults = read_all(tmp_path, mutants(tmp_path, 3000, seed=1))
    print(dict(counts))
    assert not faults and counts.total() == 3000


@pytest.mark.slow
def test_damaged_files_are_predicted(tmp_path):
    """The bundled model gives one prediction each, and none as if nothing were missing."""
    files = list(mutants(tmp_path, 360, seed=2))
    whole = {name: audio.read(write(tmp_path / f"intact.{name}", name)).duration_s for name in FORMATS}
    predictions = list(sertone.load().predict_files(path for path, *_ in files))
    assert len(predictions) == len(files)
    for prediction, (path, name, damage) in zip(predictions, files, strict=True):
        details = path.name, damage, prediction.code, prediction.message
        assert prediction.code not in ("failed", "decoder_crashed", "decode_timeout"), details
        if prediction.status == "ok":
            header = audio.inspect(path)
            assert header.sampling_rate != audio.inspect(tmp_path / f"intact.{name}").sampling_rate or (
                prediction.duration_s >= whole[name] - SEGMENT_TOLERANCE_S
            ), details
        if prediction.label is not None:
            assert np.isclose(sum(prediction.probabilities.values()), 1, atol=1e-4), details
