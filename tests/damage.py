"""Damage to files: torn, flipped, on a full disk; and hashes recomputed after a change that must go unnoticed."""

import contextlib
import json
import resource
from hashlib import sha256


def tear(path):
    """Keep the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    """Invert the last byte of a file."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 0xFF]))


def rehash(folder, marker="checkpoint.json"):
    """State the hashes of the files as they are now."""
    about = json.loads((folder / marker).read_text())
    about["files"] = {name: sha256((folder / name).read_bytes()).hexdigest() for name in about["files"]}
    (folder / marker).write_text(json.dumps(about))


@contextlib.contextmanager
def room(size):
    """Limit the size of all files of this process, which acts like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
