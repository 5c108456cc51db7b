"""The hostile child: enters the sandbox as the product does, then tries one way out.

Run as ``python -m tests.sandbox_probes.child <probe> --ask {...} --confine {...}``. With
``"open": true`` in the question it does not enter, which shows that the probe itself works.
"""

import ctypes
import json
import mmap
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from apps.inference.sandbox.__main__ import _confinement
from apps.inference.sandbox.enter import enter

LIBC = ctypes.CDLL(None, use_errno=True)
Ask = dict[str, str]
PROBES: dict[str, Callable[[Ask], str]] = {}


def probe(run: Callable[[Ask], str]) -> Callable[[Ask], str]:
    PROBES[run.__name__] = run
    return run


def _call(number: int, *args: object) -> str:
    """A raw system call (x86_64 numbers); raises as the kernel refuses."""
    if LIBC.syscall(number, *args) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "done"


@probe
def read_a_secret_file(ask: Ask) -> str:
    return Path(ask["secret"]).read_text()


@probe
def list_a_foreign_folder(ask: Ask) -> str:
    return repr(list(Path(ask["secret"]).parent.iterdir()))


@probe
def read_the_password_file(ask: Ask) -> str:
    return Path("/etc/passwd").read_text()[:20]


@probe
def read_the_projects_settings(ask: Ask) -> str:
    return Path(ask["settings"]).read_text()[:20]


@probe
def read_the_parents_environment(ask: Ask) -> str:
    return Path(f"/proc/{os.getppid()}/environ").read_text()[:20]


@probe
def read_the_parents_memory(ask: Ask) -> str:
    parent = os.getppid()
    buffer = ctypes.create_string_buffer(8)
    local = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    remote = (ctypes.c_void_p * 2)(id(ask), 8)
    return _call(310, parent, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)


@probe
def find_a_secret_in_the_environment(ask: Ask) -> str:
    found = [name for name in os.environ if "SECRET" in name or "TOKEN" in name]
    if not found:
        raise PermissionError("no secret here")
    return repr(found)


@probe
def open_a_tcp_connection(ask: Ask) -> str:
    with socket.create_connection(("127.0.0.1", int(ask["port"])), timeout=2):
        return "connected"


@probe
def listen_on_a_port(ask: Ask) -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        return "listening"


@probe
def send_a_datagram(ask: Ask) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        return str(sender.sendto(b"x", ("127.0.0.1", int(ask["port"]))))


@probe
def open_an_abstract_socket(ask: Ask) -> str:
    with socket.socket(socket.AF_UNIX) as one:
        one.connect("\0" + ask["abstract"])
        return "connected"


@probe
def make_a_socket_pair(ask: Ask) -> str:
    one, other = socket.socketpair()
    one.close()
    other.close()
    return "made"


@probe
def fork(ask: Ask) -> str:
    if os.fork() == 0:
        os._exit(0)
    return "forked"  # not waited for: a refused wait would look like a refused fork


@probe
def clone_a_process_by_the_new_call(ask: Ask) -> str:
    facts = (ctypes.c_uint64 * 8)()
    facts[4] = signal.SIGCHLD
    made = LIBC.syscall(435, ctypes.byref(facts), ctypes.sizeof(facts))
    if made == 0:
        os._exit(0)
    if made < 0:
        raise OSError(ctypes.get_errno(), "clone3")
    return "cloned"


@probe
def run_a_program(ask: Ask) -> str:
    os.execv("/bin/true", ["/bin/true"])


@probe
def run_a_program_from_memory(ask: Ask) -> str:
    handle = os.memfd_create("x")
    os.write(handle, Path("/usr/bin/env").read_bytes())
    os.execve(handle, ["env"], {})


@probe
def kill_the_parent(ask: Ask) -> str:
    os.kill(int(ask["victim"]), signal.SIGTERM)
    return "sent"


@probe
def kill_everyone(ask: Ask) -> str:
    os.kill(int(ask["victim"]), 0)
    return "reached"


@probe
def leave_the_session(ask: Ask) -> str:
    # A session leader cannot make a session, so the group call is the one that shows it.
    os.setpgid(0, os.getppid() if "open" not in ask else 0)
    return "left"


@probe
def forget_the_death_signal(ask: Ask) -> str:
    if LIBC.prctl(1, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    return "forgotten"


@probe
def trace_the_parent(ask: Ask) -> str:
    return _call(101, 16, int(ask["victim"]), None, None)


@probe
def write_outside(ask: Ask) -> str:
    return str(Path(ask["outside"]).write_text("x"))


@probe
def change_our_own_code(ask: Ask) -> str:
    with Path(ask["code"]).open("a"):
        return "opened"


@probe
def link_to_a_secret(ask: Ask) -> str:
    Path("link").symlink_to(ask["secret"])
    return "linked"


@probe
def link_a_secret_hard(ask: Ask) -> str:
    Path("link").hardlink_to(ask["secret"])
    return "linked"


@probe
def hide_a_file_by_deleting_it(ask: Ask) -> str:
    Path("file").write_text("x")
    Path("file").unlink()
    return "deleted"


@probe
def hide_a_file_without_a_name(ask: Ask) -> str:
    os.close(os.open(".", os.O_TMPFILE | os.O_RDWR))
    return "opened"


@probe
def make_a_namespace(ask: Ask) -> str:
    return _call(272, 0x10000000)


@probe
def mount_something(ask: Ask) -> str:
    return _call(165, b"none", b".", b"tmpfs", 0, None)


@probe
def set_up_io_uring(ask: Ask) -> str:
    return _call(425, 4, ctypes.create_string_buffer(120))


@probe
def add_a_key(ask: Ask) -> str:
    return _call(248, b"user", b"probe", b"x", 1, -3)


@probe
def load_a_bpf_program(ask: Ask) -> str:
    return _call(321, 0, ctypes.create_string_buffer(64), 64)


@probe
def keep_shared_memory(ask: Ask) -> str:
    return _call(29, 0, 4096, 0o1600)


@probe
def write_to_shared_memory_files(ask: Ask) -> str:
    path = Path("/dev/shm") / Path(ask["outside"]).name
    path.write_text("x")
    path.unlink()
    return "written"


@probe
def use_the_other_call_numbers(ask: Ask) -> str:
    return _call(0x40000000 + 41, 2, 1, 0)


@probe
def raise_the_limits(ask: Ask) -> str:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (1 << 45, 1 << 45))
    if "open" not in ask and resource.getrlimit(resource.RLIMIT_AS)[0] != 1 << 45:
        raise PermissionError("kept")
    return "raised"


@probe
def become_someone_else(ask: Ask) -> str:
    os.setuid(12345)
    return "became"


@probe
def allocate_64_gigabytes(ask: Ask) -> str:
    with mmap.mmap(-1, 64 << 30) as area:
        return str(len(area))


@probe
def loop_for_ever_and_ignore_signals(ask: Ask) -> str:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU):
        signal.signal(number, signal.SIG_IGN)
    while True:
        pass


@probe
def sleep_for_ever(ask: Ask) -> str:
    time.sleep(3600)
    return "woke"


@probe
def fill_the_disk_with_one_file(ask: Ask) -> str:
    with Path("big").open("wb") as file:
        while True:
            file.write(bytes(1 << 20))


@probe
def fill_the_disk_with_many_files(ask: Ask) -> str:
    for number in range(900):
        Path(f"f{number}").write_bytes(bytes(1 << 20))
    time.sleep(3600)
    return "filled"


@probe
def start_many_threads(ask: Ask) -> str:
    threading.stack_size(64 << 10)
    for _ in range(500):
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    time.sleep(3600)
    return "started"


@probe
def leave_a_huge_report(ask: Ask) -> str:
    Path("report.json").write_bytes(b" " * (8 << 20))
    os._exit(0)


@probe
def leave_a_folder_as_report(ask: Ask) -> str:
    Path("report.json").mkdir()
    return "made"


@probe
def say_who_it_is(ask: Ask) -> str:
    status = Path("/proc/self/status").read_text() if "open" in ask else ""
    return f"{os.getuid()} {os.getgid()} {os.getgroups()} {status}"


@probe
def do_nothing(ask: Ask) -> str:
    raise PermissionError("nothing tried")


@probe
def start_one_thread(ask: Ask) -> str:
    done: list[int] = []
    thread = threading.Thread(target=done.append, args=(1,))
    thread.start()
    thread.join()
    return "threads work"


def main() -> None:
    name = sys.argv[1]
    options = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
    ask = json.loads(options["--ask"])
    if "open" not in ask:
        enter(_confinement(options["--confine"], []))
    try:
        said, escaped = PROBES[name](ask), True
    except (OSError, MemoryError) as error:
        said, escaped = f"{type(error).__name__}: {error}", False
    Path("report.json").write_text(json.dumps({"escaped": escaped, "said": said}))


if __name__ == "__main__":
    main()
