"""Private PostgreSQL and Redis for the tests: installed if absent, started, and ended by pid.

    python scripts/services.py install
    python scripts/services.py run -- make suites

``run`` starts both on free ports of the loopback interface in a temporary folder, gives their
addresses to the command as MLP_TEST_POSTGRES_URL and MLP_TEST_REDIS_URL, and ends both when the
command has ended, however it ended. Only the standard library is used: this runs before the tests.
"""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

POSTGRES_HOMES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
)
START_SECONDS = 30.0
STOP_SECONDS = 15.0
PACKAGES = {
    "postgres": "postgresql",
    "redis-server": "redis-server",
    "chromium": "chromium",
    "node": "nodejs",
}


class ServiceError(Exception):
    """A service cannot be had; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Running:
    """One started service: its address, and its process to be ended with ``stop_signal``."""

    url: str
    process: "subprocess.Popen[bytes]"
    stop_signal: signal.Signals


# --- what the machine has ---------------------------------------------------------------------


def find_program(name: str) -> str | None:
    """Return the path of a program, also where Debian hides PostgreSQL's server."""
    homes = sorted(
        (str(home) for glob in POSTGRES_HOMES for home in Path("/").glob(glob[1:])), key=_number
    )
    return shutil.which(name, path=os.pathsep.join([*reversed(homes), os.environ.get("PATH", "")]))


def _number(home: str) -> int:
    return int("".join(filter(str.isdigit, home)) or 0)


def missing() -> list[str]:
    """Return the system packages whose programs are absent."""
    return [package for program, package in PACKAGES.items() if find_program(program) is None]


def install() -> None:
    """Install what is absent from the system's packages, or say who has to."""
    wanted = missing()
    if not wanted:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *wanted]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ServiceError(
            f"The tests need {', '.join(wanted)}, which this machine lacks. "
            f"Install them with your system's packages, on Debian as root: {' '.join(command)}"
        )
    print(f"Installing {', '.join(wanted)} from the system's packages", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["apt-get", "update", "-q"], command):
        if subprocess.run(step, env=environment, check=False).returncode != 0:
            raise ServiceError(f"`{' '.join(step)}` failed; its own words are above.")


# --- starting -----------------------------------------------------------------------------------


def start_postgres(folder: Path) -> Running:
    """Start a private PostgreSQL in a folder; nothing it holds survives a power cut."""
    data, password, user = folder / "postgres", secrets.token_hex(16), _postgres_user()
    data.mkdir(mode=0o700)
    secret = folder / "postgres.password"
    secret.write_text(password, encoding="ascii")
    secret.chmod(0o600)
    if user is not None:
        for path in (folder, data, secret):
            os.chown(path, user.pw_uid, user.pw_gid)
    _initialise(data, secret)
    port = free_port()
    options = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",  # a socket's path may have 107 bytes, a folder's more
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "max_connections": 200,
    }
    settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    process = _spawn(
        [*_as_postgres(), _needed("postgres"), "-D", str(data), *settings], folder / "postgres.log"
    )
    url = f"postgres://mlplatform:{password}@127.0.0.1:{port}/postgres"
    running = Running(url, process, signal.SIGINT)  # its "fast" shutdown: clients are sent away
    ready = [_needed("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    _wait_until(
        running,
        lambda: subprocess.run(ready, check=False).returncode == 0,
        "PostgreSQL",
        folder / "postgres.log",
    )
    return running


def _initialise(data: Path, secret: Path) -> None:
    done = subprocess.run(
        [
            *_as_postgres(),
            _needed("initdb"),
            *("-D", str(data), "-U", "mlplatform", "-A", "scram-sha-256", "--pwfile", str(secret)),
            *("-E", "UTF8", "--locale=C.UTF-8", "--no-sync"),
        ],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ServiceError(f"PostgreSQL's data folder could not be made:\n{done.stderr.strip()}")


def _postgres_user() -> pwd.struct_passwd | None:
    """Return who PostgreSQL runs as when we are root, whom it refuses to run as."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres")
    raise ServiceError(
        "PostgreSQL refuses to run as root and this machine has no user `postgres`. "
        "Make one (useradd --system postgres), or run the tests as another user."
    )


def _as_postgres() -> list[str]:
    """Return the words that start a program as that user, ending with us if we are killed."""
    if os.geteuid() != 0:
        return []
    drop = ["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=INT"]
    return [_needed("setpriv"), *drop]


def start_redis(folder: Path) -> Running:
    """Start a private Redis that keeps nothing on disk."""
    data, port, password = folder / "redis", free_port(), secrets.token_hex(16)
    data.mkdir(mode=0o700)
    # By standard input, so that the password is in no process list.
    text = (
        f"bind 127.0.0.1\nport {port}\ndir {data}\nrequirepass {password}\n"
        'save ""\nappendonly no\nmaxmemory-policy noeviction\n'
    )
    process = _spawn([_needed("redis-server"), "-"], folder / "redis.log", text.encode())
    running = Running(f"redis://:{password}@127.0.0.1:{port}/0", process, signal.SIGTERM)
    _wait_until(running, lambda: _redis_answers(port, password), "Redis", folder / "redis.log")
    return running


def _redis_answers(port: int, password: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as link:
            link.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            with link.makefile("rb") as answers:
                return answers.readline() == b"+OK\r\n" and answers.readline() == b"+PONG\r\n"
    except OSError:
        return False


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _needed(program: str) -> str:
    found = find_program(program)
    if found is None:
        raise ServiceError(f"`{program}` is not here. Run: python scripts/services.py install")
    return found


def _spawn(command: Sequence[str], log: Path, text: bytes = b"") -> "subprocess.Popen[bytes]":
    with log.open("wb") as out:
        # A session of its own: Ctrl-C in the terminal ends the tests first and the services after.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
        )
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.close()
    return process


def _wait_until(running: Running, ready: Callable[[], bool], name: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    try:
        while not ready():
            _still_starting(running, deadline, name, log)
            time.sleep(0.1)
    except BaseException:  # an interrupt too: nobody else knows this process yet
        stop(running)
        raise


def _still_starting(running: Running, deadline: float, name: str, log: Path) -> None:
    if running.process.poll() is not None or time.monotonic() > deadline:
        said = log.read_text(errors="replace")[-2000:]
        raise ServiceError(f"{name} did not start. It said:\n{said}")


# --- ending -------------------------------------------------------------------------------------


def stop(running: Running) -> None:
    """End one service by its pid: politely, then not."""
    if running.process.poll() is None:
        running.process.send_signal(running.stop_signal)
        try:
            running.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            running.process.kill()
    running.process.wait()


@contextlib.contextmanager
def services() -> Iterator[dict[str, str]]:
    """Yield the environment that names both services; end both afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="mlplatform-services-"))
    started: list[Running] = []
    try:
        postgres = start_postgres(folder)
        started.append(postgres)
        redis = start_redis(folder)
        started.append(redis)
        yield {"MLP_TEST_POSTGRES_URL": postgres.url, "MLP_TEST_REDIS_URL": redis.url}
    finally:
        for one in reversed(started):
            stop(one)
        shutil.rmtree(folder, ignore_errors=True)


class Interrupted(Exception):
    """Somebody wants us to end before the command was started."""


def run(command: Sequence[str]) -> int:
    """Run a command between the start and the end of the services; return its exit status."""
    child: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if not child:
            raise Interrupted  # while starting: unwinds through the clean-up
        child[0].send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    with services() as environment:
        child.append(subprocess.Popen(command, env={**os.environ, **environment}))
        status = child[0].wait()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the clean-up takes seconds and is not left out
    return status if status >= 0 else 128 - status


def main(words: Sequence[str]) -> int:
    """Read the command line and do it."""
    try:
        if words == ["install"]:
            install()
            return 0
        if len(words) > 2 and words[:2] == ["run", "--"]:
            return run(words[2:])
    except ServiceError as error:
        print(error, file=sys.stderr)
        return 1
    except Interrupted:
        return 130
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
