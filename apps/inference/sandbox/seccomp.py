"""The system calls a confined child may make, as raw BPF through ctypes; standard library only.

An allow list: what is not named here is refused, also calls that a later kernel brings. There is
no socket, no exec, no new process (a thread is allowed), no rename, link or delete, no signal to
others, no ptrace, mount, namespace, io_uring, keyring, bpf or shared memory segment in it.
"""

import ctypes
import os
import platform
import struct
from dataclasses import dataclass

PR_SET_NO_NEW_PRIVS = 38
PR_GET_SECCOMP = 21
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
REFUSE = 0x00050000 | 1  # EPERM
MISSING = 0x00050000 | 38  # ENOSYS, so that the C library falls back to the older call

X32_BIT = 0x40000000
CLONE_THREAD = 0x00010000
O_TMPFILE_BIT = 0x00400000

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# name: (number on x86_64, number on aarch64); None where the call does not exist
PLAIN: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "poll": (7, None),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "readv": (19, 65),
    "writev": (20, 66),
    "access": (21, None),
    "pipe": (22, None),
    "select": (23, None),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "mincore": (27, 232),
    "madvise": (28, 233),
    "dup": (32, 23),
    "dup2": (33, None),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "exit": (60, 93),
    "uname": (63, 160),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "ftruncate": (77, 46),
    "getcwd": (79, 17),
    "readlink": (89, None),
    "umask": (95, 166),
    "gettimeofday": (96, 169),
    "getrlimit": (97, 163),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "times": (100, 153),
    "getuid": (102, 174),
    "getgid": (104, 176),
    "geteuid": (107, 175),
    "getegid": (108, 177),
    "getppid": (110, 173),
    "getpgrp": (111, None),
    "getgroups": (115, 158),
    "getresuid": (118, 148),
    "getresgid": (120, 150),
    "getpgid": (121, 155),
    "getsid": (124, 156),
    "sigaltstack": (131, 132),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    "arch_prctl": (158, None),
    "gettid": (186, 178),
    "time": (201, None),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "getdents64": (217, 61),
    "set_tid_address": (218, 96),
    "restart_syscall": (219, 128),
    "fadvise64": (221, 223),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "get_mempolicy": (239, 236),
    "newfstatat": (262, 79),
    "readlinkat": (267, 78),
    "faccessat": (269, 48),
    "pselect6": (270, 72),
    "ppoll": (271, 73),
    "set_robust_list": (273, 99),
    "get_robust_list": (274, 100),
    "fallocate": (285, 47),
    "dup3": (292, 24),
    "pipe2": (293, 59),
    "preadv": (295, 69),
    "pwritev": (296, 70),
    "getcpu": (309, 168),
    "getrandom": (318, 278),
    "membarrier": (324, 283),
    "statx": (332, 291),
    "rseq": (334, 293),
    "faccessat2": (439, 439),
}

# Calls the C library tries first and can do without.
FALL_BACK = {"clone3": (435, 435), "openat2": (437, 437)}

# Terminal and descriptor questions that Python asks of each file it opens.
IOCTLS = (0x5401, 0x5411, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# Duplicate, flags, locks, pipe size; nothing that names another process.
FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)
# Thread names, dumpable, names of memory areas: not the death signal, not a second filter.
PRCTLS = (15, 16, 3, 0x53564D41)


class SeccompRefused(OSError):
    """The kernel, or this processor, does not take the filter."""


@dataclass(frozen=True, slots=True)
class Conditional:
    """A call that depends on one argument: allowed if one of ``equal``, or has / lacks bits."""

    numbers: tuple[int | None, int | None]
    argument: int
    equal: tuple[int, ...] = ()
    needs_bit: int = 0
    lacks_bit: int = 0


def is_available() -> bool:
    """Whether this kernel has seccomp filters and we know this processor's numbers."""
    if platform.machine() not in ARCHITECTURES:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0)


def enter() -> None:
    """Install the filter for this thread and all it starts.

    Raises:
        SeccompRefused: There is no filter now.
    """
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise SeccompRefused(f"There is no system call list for {machine}.")
    code = program(machine, os.getpid())
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    held = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("@HxxxxxxP", len(code) // 8, ctypes.addressof(held))
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(head), 0, 0):
        raise SeccompRefused(ctypes.get_errno(), "The kernel refused the seccomp filter.")


def program(machine: str, pid: int) -> bytes:
    """Assemble the filter: wrong architecture dies, named calls pass, the rest is refused."""
    column = list(ARCHITECTURES).index(machine)
    code = [_load(4), _jump_equal(ARCHITECTURES[machine], 1, 0), _answer(KILL_PROCESS), _load(0)]
    if machine == "x86_64":
        # The x32 numbers name the same calls again and would walk around the list.
        code += [_op(0x35, X32_BIT, 0, 1), _answer(KILL_PROCESS)]
    for numbers in PLAIN.values():
        code += _if_number(numbers[column], [_answer(ALLOW)])
    for numbers in FALL_BACK.values():
        code += _if_number(numbers[column], [_answer(MISSING)])
    for rule in _conditionals(pid):
        code += _if_number(rule.numbers[column], _condition(rule))
    code.append(_answer(REFUSE))
    return b"".join(code)


def _conditionals(pid: int) -> tuple[Conditional, ...]:
    return (
        Conditional((56, 220), 0, needs_bit=CLONE_THREAD),  # clone: threads only
        Conditional((257, 56), 2, lacks_bit=O_TMPFILE_BIT),  # openat: no file without a name
        Conditional((62, 129), 0, equal=(pid,)),  # kill: only itself
        Conditional((234, 131), 0, equal=(pid,)),  # tgkill: only itself, which abort() needs
        Conditional((302, 261), 0, equal=(0, pid)),  # prlimit64
        Conditional((16, 29), 1, equal=IOCTLS),  # ioctl
        Conditional((72, 25), 1, equal=FCNTLS),  # fcntl
        Conditional((157, 167), 0, equal=PRCTLS),  # prctl
    )


def _if_number(number: int | None, then: list[bytes]) -> list[bytes]:
    if number is None:
        return []
    return [_jump_equal(number, 0, len(then)), *then]


def _condition(rule: Conditional) -> list[bytes]:
    """Answer for one call; ends in an answer on every path, so the number is not needed again."""
    code = [_load(16 + 8 * rule.argument)]
    for value in rule.equal:
        code += [_jump_equal(value, 0, 1), _answer(ALLOW)]
    if rule.needs_bit:
        code += [_op(0x45, rule.needs_bit, 0, 1), _answer(ALLOW)]
    if rule.lacks_bit:
        code += [_op(0x45, rule.lacks_bit, 1, 0), _answer(ALLOW)]
    return [*code, _answer(REFUSE)]


def _op(code: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _load(offset: int) -> bytes:
    """Load the low word at ``offset`` of the call's data (both processors are little-endian)."""
    return _op(0x20, offset, 0, 0)


def _jump_equal(value: int, if_true: int, if_false: int) -> bytes:
    return _op(0x15, value, if_true, if_false)


def _answer(value: int) -> bytes:
    return _op(0x06, value, 0, 0)
