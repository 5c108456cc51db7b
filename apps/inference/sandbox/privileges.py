"""Who a confined child is: a nobody where it can still read its libraries, else a powerless root.

An interpreter that lives in a root-only folder cannot be read by anyone else. Then the child keeps
uid 0 without a single capability: it is the owner of root's files and nothing more, and Landlock
says which of them it sees.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

NOBODY = 65534
LAST_CAPABILITY = 63
PR_CAPBSET_READ, PR_CAPBSET_DROP = 23, 24
PR_SET_SECUREBITS = 28
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
# Root is no longer special, keeping capabilities over a change of uid is off, all of it locked.
SECUREBITS = 0b10_1111
CAPABILITY_VERSION_3 = 0x20080522


class PrivilegesKept(OSError):
    """The kernel did not take the powers away."""


def can_become_nobody(paths: Iterable[str]) -> bool:
    """Whether we are root and everything needed stays readable for a stranger."""
    return os.geteuid() == 0 and all(is_readable_by(path, NOBODY) for path in paths)


def is_readable_by(path: str, uid: int) -> bool:
    """Whether a user without groups reaches and reads this path, walking down from the root."""
    try:
        return is_reachable_by(path, uid) and _grants(os.path.realpath(path), uid, 0o4)
    except OSError:
        return False


def is_reachable_by(path: str, uid: int) -> bool:
    """Whether a user without groups may pass through every folder above this path."""
    real = os.path.realpath(path)
    parts = real.strip("/").split("/") if real != "/" else []
    parents = ["/" + "/".join(parts[:depth]) for depth in range(len(parts))]
    try:
        return all(_grants(parent, uid, 0o1) for parent in parents)
    except OSError:
        return False


def _grants(path: str, uid: int, bit: int) -> bool:
    facts = os.stat(path)  # noqa: PTH116  the standard library's least part
    if stat.S_ISDIR(facts.st_mode):
        bit |= 0o1
    shift = 6 if facts.st_uid == uid else 0
    return (facts.st_mode >> shift) & bit == bit


def become_nobody(own: Iterable[str]) -> None:
    """Give these paths to nobody, then be nobody for ever."""
    for path in own:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    drop_bounding_set()
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def drop_bounding_set() -> None:
    """Take every capability out of reach of this process and what it starts (root only)."""
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(LAST_CAPABILITY + 1):
        if libc.prctl(PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    libc.prctl(PR_SET_SECUREBITS, SECUREBITS, 0, 0, 0)


def drop_capabilities() -> None:
    """Give up every capability held; does no harm where there is none.

    Raises:
        PrivilegesKept: The kernel refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    head = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    if libc.capset(head, bytes(24)):
        raise PrivilegesKept(ctypes.get_errno(), "capset was refused.")
