"""Tier A: locks the door behind a fresh child before it imports any library; standard library only.

Landlock and seccomp bind the calling thread and what it starts later. A library that has started
its own threads at import would leave them outside, so this runs first and refuses to run second.
"""

import ctypes
import os
import resource
import signal
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from apps.inference.sandbox import landlock, privileges, seccomp

PR_SET_PDEATHSIG = 1
PROJECT_APPS = str(Path(__file__).resolve().parents[2])

SYSTEM_PATHS = (
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/dev/urandom",
    # What numpy and ONNX Runtime ask about the processor.
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system/cpu",
)
DEVICES = ("/dev/null",)
# Which libraries are mapped (threadpoolctl asks, for scikit-learn) and how much memory is used.
OWN = ("/proc/self/maps", "/proc/self/statm")


class NotFresh(RuntimeError):
    """Something ran before the doors were locked."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """What the parent asks for.

    Attributes:
        work: The working folder, and the only one to write to.
        parent: Process whose death ends this one.
        memory_bytes: Address space.
        cpu_seconds: Processor time; 0 is no limit.
        file_bytes: Largest file.
        open_files: File descriptors.
        may_write: Whether it may make files in ``work``, or only be there.
        inputs: Further paths to read.
    """

    work: str
    parent: int
    memory_bytes: int
    cpu_seconds: int
    file_bytes: int
    open_files: int
    may_write: bool = True
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Walls:
    """Which walls stand, or would stand, on this machine.

    Attributes:
        landlock_abi: Version of Landlock, 0 for none.
        seccomp: Whether the system call list is in force.
        nobody: Whether the child is a user of its own without rights.
    """

    landlock_abi: int
    seccomp: bool
    nobody: bool

    @property
    def holds_code(self) -> bool:
        """Whether a file that may run code can be opened behind these walls.

        Without the system call list it could reach the network. Without Landlock it could read
        what this user may read, which is acceptable only for a user who may read nothing of ours.
        """
        return self.seccomp and (self.landlock_abi > 0 or self.nobody)


def probe() -> Walls:
    """Say which walls this machine offers, without entering them."""
    return Walls(
        landlock_abi=landlock.abi(),
        seccomp=seccomp.is_available(),
        nobody=privileges.can_become_nobody(readable_paths()),
    )


def enter(asked: Confinement) -> Walls:
    """Lock this process in, for ever.

    Walls that the kernel does not offer are left out and reported; a wall that is offered and
    then refused is an error, so that nothing runs behind half a door by accident.

    Raises:
        NotFresh: Other threads run already and would stay outside.
    """
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise NotFresh("Threads run already; they would stay outside the sandbox.")
    nobody = _drop_powers(asked)
    _end_with_parent(asked.parent)
    _limit(asked)
    os.chdir(asked.work)
    return Walls(_enter_landlock(asked), _enter_seccomp(), nobody)


def readable_paths() -> list[str]:
    """Libraries of this interpreter and the code of the project, never a whole home or project."""
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    paths = {sysconfig.get_path(kind) for kind in kinds}
    paths |= {path for path in sys.path if path.endswith(("site-packages", "dist-packages"))}
    paths |= {path for path in sys.path if path.endswith("lib-dynload")}
    paths.add(PROJECT_APPS)
    return sorted(path for path in paths if Path(path).is_dir())


def _drop_powers(asked: Confinement) -> bool:
    if os.geteuid() != 0:
        privileges.drop_capabilities()
        return False
    # The folder is given away, but may lie where a nobody does not come.
    nobody = privileges.is_reachable_by(asked.work, privileges.NOBODY)
    nobody = nobody and privileges.can_become_nobody([*readable_paths(), *asked.inputs])
    if nobody:
        privileges.become_nobody([asked.work])
    else:
        privileges.drop_bounding_set()
    privileges.drop_capabilities()
    return nobody


def _end_with_parent(parent: int) -> None:
    """Ask for the death signal; after the change of uid, which would clear it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)  # the parent went before we asked


def _limit(asked: Confinement) -> None:
    wanted = (
        (resource.RLIMIT_AS, asked.memory_bytes),
        (resource.RLIMIT_FSIZE, asked.file_bytes),
        (resource.RLIMIT_NOFILE, asked.open_files),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    )
    for kind, most in wanted:
        _lower(kind, most, most)
    if asked.cpu_seconds:
        # The first signal can be ignored, the second, two seconds later, cannot.
        _lower(resource.RLIMIT_CPU, asked.cpu_seconds, asked.cpu_seconds + 2)


def _lower(kind: int, soft: int, hard: int) -> None:
    """Set a limit, or keep a lower one that the operator has set already."""
    _, standing = resource.getrlimit(kind)
    if standing != resource.RLIM_INFINITY:
        soft, hard = min(soft, standing), min(hard, standing)
    resource.setrlimit(kind, (soft, hard))


def _enter_landlock(asked: Confinement) -> int:
    version = landlock.abi()
    if version:
        landlock.enter(
            read=[*SYSTEM_PATHS, *readable_paths(), *asked.inputs, asked.work],
            write=[asked.work] if asked.may_write else [],
            devices=DEVICES,
            own=OWN,
        )
    return version


def _enter_seccomp() -> bool:
    if not seccomp.is_available():
        return False
    seccomp.enter()
    return True
