"""How files come to harm: torn, emptied, flipped, without room; and hashes set right after a change that is not to
be noticed."""

import contextlib
import json
import resource
from hashlib import sha256


def tear(path):
    """Keep the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    """Invert the last byte of a file."""
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 0xFF]))


def rehash(folder, marker="checkpoint.json"):
    """State the hashes of the files as they are now."""
    about = json.loads((folder / marker).read_text())
    about["files"] = {name: sha256((folder / name).read_bytes()).hexdigest() for name in about["files"]}
    (folder / marker).write_text(json.dumps(about))


@contextlib.contextmanager
def room(size):
    """No file of this process may be larger; to it that is as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
