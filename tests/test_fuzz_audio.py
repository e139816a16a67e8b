"""Damaged sound files by the thousand: none crashes, hangs or is answered as if nothing were missing."""

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


def judged(folder, files):
    """Reads files in processes of their own: how many ended in which way, and those that should not have."""
    whole = {name: verdict(write(folder / f"intact.{name}", name)) for name in FORMATS}
    assert all(found.status == "ok" for found in whole.values()), whole
    counts, faults = Counter(), []
    calls = ((path, name, damage) for path, name, damage in files)
    running = run_parallel([HERE] * min(2, count_cores()), verdict, calls, timeout_s=LIMIT_S)
    with contextlib.closing(running):
        for (path, name, damage), future in running:
            outcome = outcome_of(future, whole[name])
            counts[outcome] += 1
            if outcome not in ("ok", "warning", "error"):
                faults.append((path.name, damage, outcome))
            path.unlink()
    return counts, faults


def outcome_of(future, intact):
    """`ok`, `warning` or `error`; or `crash`, `hang`, `traceback`, or `lost`: shorter without a warning."""
    try:
        found = future.result()
    except ChildStuckError:
        return "hang"
    except ChildDiedError:
        return "crash"
    return "lost" if found.status == "ok" and shorter(found, intact) else found.status


def shorter(found, intact):
    """Whether audio is missing. Where the header has become that of another rate, samples are compared."""
    if found.rate == intact.rate:
        return found.samples / found.rate < intact.samples / intact.rate - SEGMENT_TOLERANCE_S
    return found.samples * found.channels < intact.samples - SEGMENT_TOLERANCE_S * intact.rate


def test_damaged_files_are_told(tmp_path):
    """Every format and every damage, a few times."""
    counts, faults = judged(tmp_path, mutants(tmp_path, 2 * len(FORMATS) * len(MUTATIONS)))
    assert not faults and counts.total() == 144
    assert counts["warning"] > 20 and counts["error"] > 20, counts


@pytest.mark.slow
def test_three_thousand_damaged_files_are_told(tmp_path):
    counts, faults = judged(tmp_path, mutants(tmp_path, 3000, seed=1))
    print(dict(counts))
    assert not faults and counts.total() == 3000


@pytest.mark.slow
def test_damaged_files_are_predicted(tmp_path):
    """By the model that comes with Sertone: one answer each, and none about what is not there."""
    files = list(mutants(tmp_path, 360, seed=2))
    whole = {name: audio.read(write(tmp_path / f"intact.{name}", name)).duration_s for name in FORMATS}
    answers = list(sertone.load().predict_files(path for path, *_ in files))
    assert len(answers) == len(files)
    for answer, (path, name, damage) in zip(answers, files, strict=True):
        said = path.name, damage, answer.code, answer.message
        assert answer.code not in ("failed", "decoder_crashed", "decode_timeout"), said
        if answer.status == "ok":
            found = audio.inspect(path)
            assert found.sampling_rate != audio.inspect(tmp_path / f"intact.{name}").sampling_rate or (
                answer.duration_s >= whole[name] - SEGMENT_TOLERANCE_S
            ), said
        if answer.label is not None:
            assert np.isclose(sum(answer.probabilities.values()), 1, atol=1e-4), said
