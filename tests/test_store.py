"""The store: gives back what was put, between processes and after crashes, or nothing."""

import gc
import multiprocessing
import os
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sertone.training.data.array_store import ArrayStore

arrays = st.tuples(
    st.sampled_from(["<i2", "<f4", "<u1"]), st.lists(st.integers(0, 5), min_size=1, max_size=4)
)


@settings(deadline=None, max_examples=30)
@given(st.lists(arrays, max_size=12), st.booleans())
def test_a_store_gives_back_what_was_put(tmp_path_factory, made, on_disk):
    draw = np.random.default_rng(len(made))
    expected = {}
    path = tmp_path_factory.mktemp("store") / "a" if on_disk else None
    store = ArrayStore(path)
    other = ArrayStore(store.path)
    for number, (dtype, shape) in enumerate(made):
        key = bytes([number]) * 32
        expected[key] = draw.integers(0, 100, shape).astype(dtype)
        assert other.get(key) is None
        assert (store if number % 2 else other).put(key, expected[key])
    for reader in (store, other, ArrayStore(store.path)):
        for key, array in expected.items():
            found = reader.get(key)
            assert found is not None and found.dtype == array.dtype
            np.testing.assert_array_equal(found, array)
    assert store.get(b"x" * 32) is None


def test_a_store_has_a_limit_and_cannot_be_written_through():
    store = ArrayStore(limit=1000)
    assert store.put(b"a" * 32, np.ones(100, np.float32))
    assert not store.put(b"b" * 32, np.ones(200, np.float32)) and store.get(b"b" * 32) is None
    assert store.bytes_used <= 1000
    with pytest.raises(ValueError, match="read-only"):
        store.get(b"a" * 32)[0] = 2
    assert store.put(b"a" * 32, np.zeros(3)) and store.get(b"a" * 32).sum() == 100


@pytest.mark.parametrize("damage", [b"", b"RIFF", os.urandom(5000), None])
def test_a_damaged_or_foreign_file_is_begun_anew(tmp_path, damage):
    path = tmp_path / "store"
    ArrayStore(path).put(b"a" * 32, np.ones(1000))
    path.write_bytes(path.read_bytes()[:500] if damage is None else damage)
    store = ArrayStore(path)
    assert store.get(b"a" * 32) is None
    assert store.put(b"a" * 32, np.full(10, 7)) and store.get(b"a" * 32)[3] == 7


def test_a_half_written_record_is_overwritten(tmp_path):
    """What a killed process leaves behind lies beyond the end that the header names."""
    path = tmp_path / "store"
    first = ArrayStore(path)
    first.put(b"a" * 32, np.ones(10))
    with open(path, "ab") as file:
        file.write(os.urandom(300))
    second = ArrayStore(path)
    assert second.put(b"b" * 32, np.arange(50))
    np.testing.assert_array_equal(first.get(b"b" * 32), np.arange(50))


def write_many(store, worker):
    for number in range(100):
        store.put(b"%32d" % number, np.full(number, number))
        store.put(b"%16d%16d" % (worker, number), np.full(3, worker))


def test_processes_write_one_store_at_once():
    store = ArrayStore()
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=write_many, args=(store, n)) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    for number in range(100):
        np.testing.assert_array_equal(store.get(b"%32d" % number), np.full(number, number))
        for worker in range(2):
            assert store.get(b"%16d%16d" % (worker, number)).tolist() == [worker] * 3


def test_what_a_crash_has_spoilt_is_not_read(tmp_path):
    store = ArrayStore(tmp_path / "store")
    store.put(b"a" * 32, np.arange(1000))
    store.put(b"b" * 32, np.arange(1000))
    whole = bytearray((tmp_path / "store").read_bytes())
    whole[whole.index(np.arange(1000).tobytes()) + 100] ^= 1
    (tmp_path / "copy").write_bytes(whole)
    spoilt = ArrayStore(tmp_path / "copy")
    assert spoilt.get(b"a" * 32) is None and spoilt.get(b"b" * 32) is not None


def test_a_store_in_memory_ends_without_a_trace():
    store = ArrayStore()
    store.put(b"a" * 32, np.arange(10))
    path, store.itself = store.path, store  # in a circle, as a run's are
    assert path.exists()
    gc.collect()  # what other tests have left would warn now
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        del store
        gc.collect()
    assert not told and not path.exists()
