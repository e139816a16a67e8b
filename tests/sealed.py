"""Run a command that the kernel kills when it opens a socket or creates a file: `python sealed.py COMMAND...`.

A filter of system calls (seccomp) also applies to C code and child processes, and cannot be removed again.
With `--files` first, the command may create files, and open sockets of this machine (AF_UNIX), which some libraries use to
look up the user. Linux on x86-64 or ARM64.
"""

import ctypes
import os
import platform
import socket
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER = 38, 22, 2
ALLOW, KILL = 0x7FFF0000, 0x80000000
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06  # instructions of a filter
NUMBER, FIRST, THIRD = 0, 16, 32  # where a filter finds the system call's number, and its arguments
CALLS = {
    "x86_64": {"socket": 41, "io_uring_setup": 425, "openat": 257, "creat": 85, "mkdir": 83, "mkdirat": 258},
    "aarch64": {"socket": 198, "io_uring_setup": 425, "openat": 56, "mkdirat": 34},
}  # fmt: skip
CREATES = ("creat", "mkdir", "mkdirat")


def seal(*, files: bool) -> None:
    """Forbid sockets and, unless `files` is true, the creation of files to this process and its children."""
    calls = CALLS[platform.machine()]
    program = [(LOAD, 0, 0, NUMBER)]
    for name in ("io_uring_setup", *CREATES * (not files), *("socket",) * (not files)):
        if name in calls:
            program += [(EQUAL, 0, 1, calls[name]), (RETURN, 0, 0, KILL)]
    if files:
        program += [(EQUAL, 0, 4, calls["socket"]), (LOAD, 0, 0, FIRST)]
        program += [(EQUAL, 1, 0, socket.AF_UNIX), (RETURN, 0, 0, KILL), (RETURN, 0, 0, ALLOW)]
    else:
        program += [(EQUAL, 0, 4, calls["openat"]), (LOAD, 0, 0, THIRD)]
        program += [(ANY_BIT, 0, 1, os.O_CREAT), (RETURN, 0, 0, KILL), (RETURN, 0, 0, ALLOW)]
    _install([*program, (RETURN, 0, 0, ALLOW)])


def _install(program: list[tuple[int, int, int, int]]) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    whole = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, FILTER, whole, 0, 0)):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), "no filter of system calls here")


if __name__ == "__main__":
    files = sys.argv[1] == "--files"
    command = sys.argv[2:] if files else sys.argv[1:]
    seal(files=files)
    os.execv(command[0], command)
