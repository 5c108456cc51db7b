"""Which files a confined child may open, by Landlock; standard library only.

Read-only: the interpreter, its libraries, our code, a few device files, and the input. Read and
make files: the work folder. It may not delete, rename or link there either, because a file that
has no name any more but is still open would not be seen by the watch on its disk use.
"""

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterable

CREATE, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every processor
PR_SET_NO_NEW_PRIVS = 38

WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
MAKE_REG = 1 << 8
REFER = 1 << 13
TRUNCATE = 1 << 14
IOCTL_DEV = 1 << 15
FIRST_THIRTEEN = (1 << 13) - 1

READ = READ_FILE | READ_DIR
ON_FILES = WRITE_FILE | READ_FILE | TRUNCATE
WORK = READ | WRITE_FILE | MAKE_REG | TRUNCATE


class LandlockRefused(OSError):
    """The kernel does not take the rules."""


def abi() -> int:
    """Version of Landlock in this kernel; 0 is none."""
    version = _libc().syscall(CREATE, None, ctypes.c_size_t(0), 1)
    return max(0, int(version))


def enter(
    *, read: Iterable[str], write: Iterable[str], devices: Iterable[str], own: Iterable[str]
) -> None:
    """Restrict this thread and all it starts to these paths, and cut off TCP and signals.

    ``own`` are files below ``/proc/self``. The kernel makes their inodes anew when it has
    forgotten them, and a rule is bound to the inode; a handle that stays open keeps it.

    Raises:
        LandlockRefused: The rules are not in force.
    """
    version = abi()
    handled = _handled(version)
    rules = _create(version, handled)
    try:
        for path in read:
            _allow(rules, path, READ & handled)
        for path in devices:
            _allow(rules, path, (READ_FILE | WRITE_FILE) & handled)
        for path in own:
            _allow(rules, path, READ_FILE & handled, keep_open=True)
        for path in write:
            _allow(rules, path, WORK & handled)
        _libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if _libc().syscall(RESTRICT_SELF, rules, 0):
            raise LandlockRefused(ctypes.get_errno(), "landlock_restrict_self was refused.")
    finally:
        os.close(rules)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _handled(version: int) -> int:
    later = ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV))
    return FIRST_THIRTEEN | sum(bit for since, bit in later if version >= since)


def _create(version: int, handled: int) -> int:
    network = 0b11 if version >= 4 else 0  # bind and connect
    scoped = 0b11 if version >= 6 else 0  # abstract sockets, signals
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    facts = struct.pack("<QQQ", handled, network, scoped)[:size]
    rules = _libc().syscall(CREATE, facts, ctypes.c_size_t(size), 0)
    if rules < 0:
        raise LandlockRefused(ctypes.get_errno(), "landlock_create_ruleset was refused.")
    return int(rules)


def _allow(rules: int, path: str, access: int, *, keep_open: bool = False) -> None:
    with contextlib.suppress(FileNotFoundError):
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not os.path.isdir(path):  # noqa: PTH112  the standard library's least part
                access &= ON_FILES
            rule = struct.pack("<Qi", access, handle)
            if _libc().syscall(ADD_RULE, rules, 1, rule, 0):
                raise LandlockRefused(ctypes.get_errno(), f"landlock_add_rule: {path}")
        finally:
            if not keep_open:
                os.close(handle)
