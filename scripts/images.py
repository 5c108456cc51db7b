"""The images, built and run on this machine without a container engine's daemon.

    python -m scripts.images base                    # a base of the system's packages
    python -m scripts.images build web serving       # targets of deploy/docker/Dockerfile
    python -m scripts.images check                   # runs all roles, does one whole story
    python -m scripts.images clean                   # removes these images

Needs Linux, root, buildah, and debootstrap for ``base``; ``check`` also PostgreSQL and Redis, which
``scripts/services.py install`` brings. A role runs as an engine would run it: root file system
read-only, user 10001, no capability, no new privileges, process ids and mounts of its own. What
this cannot show is an engine's own seccomp profile and networks.

Behind a package index of your own, give pip's configuration as a build secret, and what it names as
volumes; neither becomes part of an image:

    python -m scripts.images build --pip-conf ~/pip.conf --volume /etc/ssl/certs:/etc/ssl/certs:ro
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.services import free_port, services

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = "deploy/docker/Dockerfile"
BUILDAH = ("buildah", "--storage-driver", "vfs")
BASE = "localhost/mlplatform-base:bookworm"
TARGETS = ("serving", "web", "worker")
USER = 10001
NOTHING: Mapping[str, str] = {}
WAIT_SECONDS = 120.0
STOP_SECONDS = 45.0
SUITE = "bookworm"
PACKAGES = "python3,python3-venv,ca-certificates"

# Runs in mount and process namespaces of its own; the last line becomes process 1 of them.
ENTER = """
set -eu
root="$1" data="$2" node="$3" secrets="$4"; shift 4
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
for one in null zero full random urandom tty; do
    touch "$root/dev/$one"; mount --bind "/dev/$one" "$root/dev/$one"
done
mkdir "$root/dev/shm"; mount -t tmpfs -o mode=1777,nosuid,nodev,noexec tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=1777,nosuid,nodev,noexec tmpfs "$root/tmp"
mount -t tmpfs -o mode=0755 tmpfs "$root/run"
mkdir "$root/run/secrets"; mount --bind -o ro "$secrets" "$root/run/secrets"
mount --bind "$data" "$root/var/lib/mlplatform/data"
mount --bind "$node" "$root/var/lib/mlplatform/node"
mount -o remount,bind,ro "$root"
exec /usr/sbin/chroot "$root" setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs \
    --bounding-set=-all --inh-caps=-all -- sh -c 'cd /opt/mlplatform/app && exec "$@"' sh "$@"
"""


class CheckFailed(Exception):
    """An image does not do what it promises; the text says which and how."""


# --- building -------------------------------------------------------------------------------------


def make_base(mirror: str) -> None:
    """Make a base image of nothing but the system's own packages."""
    with tempfile.TemporaryDirectory(prefix="mlplatform-base-") as folder:
        _must("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, folder, mirror)
        for spare in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(Path(folder) / spare, ignore_errors=True)
        container = _said(*BUILDAH, "from", "scratch")
        _must(*BUILDAH, "add", "--quiet", container, folder, "/")
        _must(*BUILDAH, "commit", "--quiet", "--format", "docker", "--rm", container, BASE)


def build(target: str, *, base: str, pip_conf: str, volumes: Sequence[str]) -> None:
    """Build one target; `--format docker` keeps the health check, which OCI's format drops."""
    extra = [word for one in volumes for word in ("--volume", one)]
    if pip_conf:
        extra += ["--secret", f"id=pip,src={Path(pip_conf).expanduser()}"]
    command = (*BUILDAH, "bud", "--isolation", "chroot", "--format", "docker", *extra)
    where = ("-f", DOCKERFILE, "--target", target, "-t", name_of(target), ".")
    _must(*command, "--build-arg", f"BASE_IMAGE={base}", *where)


def name_of(target: str) -> str:
    """Return the name under which a target is kept here."""
    return f"localhost/mlplatform-{target}:check"


# --- running --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Image:
    """One built image, its files mounted, and what its configuration says."""

    target: str
    root: Path
    config: Mapping[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        return dict(one.split("=", 1) for one in self.config["Env"])


@dataclass(frozen=True, slots=True)
class Container:
    """One role that runs; ``process`` is the parent of its process 1."""

    role: str
    process: "subprocess.Popen[str]"
    log: Path

    def stop(self) -> float:
        """Ask it to end as an engine does; return the seconds that it took.

        Raises:
            CheckFailed: It did not end in time, or not with status 0.
        """
        began = time.monotonic()
        os.kill(self._first(), signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise CheckFailed(f"{self.role} did not end within {STOP_SECONDS:.0f} s.") from None
        if status != 0:
            raise CheckFailed(f"{self.role} ended with status {status}:\n{self.last_words()}")
        return time.monotonic() - began

    def kill(self) -> None:
        """End it at once; its namespace takes everything in it along."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(self._first(), signal.SIGKILL)
            self.process.wait()

    def last_words(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-3000:]

    def _first(self) -> int:
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()[0])


class Machine:
    """Starts roles with the folders and secrets of one installation."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self._folder = folder
        self._settings = settings
        self.images: dict[str, Image] = {}
        self.running: list[Container] = []
        for name in ("data", "node-web", "node-serving"):
            (folder / name).mkdir(mode=0o700)
            os.chown(folder / name, USER, USER)
        (folder / "secrets").mkdir()

    def secret(self, name: str, value: str) -> None:
        """Put a secret where every container finds it."""
        (self._folder / "secrets" / name).write_text(value, encoding="utf-8")

    def command(
        self, target: str, node: str, words: Sequence[str], more: Mapping[str, str]
    ) -> list[str]:
        """Return the command line of a container."""
        image = self.images[target]
        environment = {**image.environment, **self._settings, **more}
        folders = [str(self._folder / name) for name in ("data", node, "secrets")]
        return [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
            *("env", "-i", *(f"{name}={value}" for name, value in environment.items())),
            *("sh", "-c", ENTER, "sh", str(image.root), *folders, *words),
        ]

    def once(
        self,
        target: str,
        *words: str,
        more: Mapping[str, str] = NOTHING,
        raw: bool = False,
    ) -> "subprocess.CompletedProcess[str]":
        """Run something to its end; ``raw`` leaves the entry point out."""
        entry = [] if raw else list(self.images[target].config["Entrypoint"])
        command = self.command(target, "node-web", [*entry, *words], more)
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    def start(
        self, target: str, role: str, more: Mapping[str, str], *, node: str = "node-web"
    ) -> Container:
        """Start a role."""
        entry = list(self.images[target].config["Entrypoint"])
        log = self._folder / f"{role}-{node}.log"
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                self.command(target, node, [*entry, role], more),
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
            )
        container = Container(f"{role} ({node})", process, log)
        self.running.append(container)
        return container

    def kill(self) -> None:
        """End whatever still runs."""
        for one in self.running:
            one.kill()


@contextlib.contextmanager
def mounted(target: str) -> Iterator[Image]:
    """Mount an image's files for the length of the block."""
    container = _said(*BUILDAH, "from", name_of(target))
    try:
        config = json.loads(_said(*BUILDAH, "inspect", container))["Docker"]["config"]
        yield Image(target, Path(_said(*BUILDAH, "mount", container)), config)
    finally:
        _said(*BUILDAH, "rm", container)


# --- the story ------------------------------------------------------------------------------------


def check() -> None:
    """Build an installation of the images and do what its people would do."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlplatform-images-")))
        folder.chmod(0o711)
        addresses = stack.enter_context(services())
        machine = Machine(folder, _settings())
        for target in TARGETS:
            machine.images[target] = stack.enter_context(mounted(target))
        _keep_secrets(machine, folder, addresses)
        stack.callback(machine.kill)
        try:
            _check_what_they_are(machine)
            _check_walls(machine)
            _check_init(machine)
            _check_roles(machine, folder)
        except (CheckFailed, OSError, subprocess.SubprocessError) as error:
            for one in machine.running:
                _say(f"--- {one.role}\n{one.last_words()}")
            raise CheckFailed(str(error)) from error


def _settings() -> dict[str, str]:
    return {
        "MLP_ALLOWED_HOSTS": "ml.example.org,127.0.0.1",
        "MLP_SSL_REDIRECT": "0",
        "MLP_REQUIRE_APPROVAL": "0",
        "MLP_SECRET_KEY_FILE": "/run/secrets/secret_key",
        "MLP_JWT_PUBLIC_KEY_FILE": "/run/secrets/jwt_public",
    }


def _keep_secrets(machine: Machine, folder: Path, addresses: Mapping[str, str]) -> None:
    machine.secret("database_url", addresses["MLP_TEST_POSTGRES_URL"])
    machine.secret("redis_url", addresses["MLP_TEST_REDIS_URL"])
    _must("sh", str(ROOT / "deploy" / "make-secrets"), str(folder / "secrets"))
    # Made by root for this check alone; compose mounts each file by itself.
    (folder / "secrets").chmod(0o755)


CONNECTED = {
    "DATABASE_URL_FILE": "/run/secrets/database_url",
    "REDIS_URL_FILE": "/run/secrets/redis_url",
}
CONTROL = {
    **CONNECTED,
    "MLP_JWT_PRIVATE_KEY_FILE": "/run/secrets/jwt_private",
    "DJANGO_SUPERUSER_PASSWORD_FILE": "/run/secrets/admin_password",
}


def _check_what_they_are(machine: Machine) -> None:
    for target, image in machine.images.items():
        config = image.config
        _expect(config["User"] == f"{USER}:{USER}", f"{target} does not run as {USER}")
        _expect(bool(config.get("Healthcheck")), f"{target} has no health check")
        _expect(config.get("StopSignal") == "SIGTERM", f"{target} stops by another signal")
        secrets = [one for one in config["Env"] if "KEY" in one or "PASSWORD" in one]
        _expect(not secrets, f"{target} holds {secrets}")
        _expect(not list(image.root.glob("run/secrets/*")), f"{target} kept a build secret")
        _expect(not list(image.root.glob("opt/installer")), f"{target} kept the installer")
    _say("images: user, health, stop signal, no secret, no installer")


def _check_walls(machine: Machine) -> None:
    for target in machine.images:
        done = machine.once(target, "sh", "-c", "id -u; touch /opt/mlplatform/app/x", raw=True)
        _expect(done.stdout.strip() == str(USER), f"{target} runs as {done.stdout}{done.stderr}")
        _expect("Read-only file system" in done.stderr, f"{target} can write to its root")
    for target, may in (("serving", ()), ("web", ()), ("worker", ("sklearn", "torch"))):
        for library in ("sklearn", "torch", "tensorflow", "pip"):
            found = machine.once(target, "python", "-c", f"import {library}", raw=True)
            has = found.returncode == 0
            _expect(has == (library in may), f"{target}: `import {library}` succeeds is {has}")
    walls = json.loads(machine.once("worker", "probe").stdout)
    _expect(walls["holds_code"], f"the sandbox is not whole in the worker: {walls}")
    _say(f"walls: read-only root, user {USER}, libraries per role, sandbox {walls}")


def _check_init(machine: Machine) -> None:
    for time_of in ("first", "second"):
        done = machine.once("web", "init", more=CONTROL)
        _expect(done.returncode == 0, f"{time_of} init: {done.stdout}{done.stderr}")
    _say(f"init, twice: {done.stdout.strip().splitlines()[-1]}")


def _check_roles(machine: Machine, folder: Path) -> None:
    web, serving = (f"127.0.0.1:{free_port()}" for _ in range(2))
    at_web, at_serving = {"MLP_BIND": web}, {"MLP_BIND": serving}
    started = [
        machine.start("web", "web", {**CONTROL, **at_web}),
        machine.start("serving", "serving", at_serving, node="node-serving"),
        machine.start("worker", "work", CONNECTED),
        machine.start("worker", "ticks", CONNECTED),
        machine.start("worker", "beat", CONNECTED),
        machine.start("serving", "agent", CONNECTED),
        machine.start("serving", "agent", CONNECTED, node="node-serving"),
    ]
    health = "/opt/mlplatform/app/deploy/docker/health.py"
    _until(lambda: _is_well(machine, "web", health, at_web), "web is alive")
    _until(lambda: _is_well(machine, "serving", health, at_serving), "serving is alive")
    _until(lambda: _get(serving, "/health/ready")[0] == 200, "serving is ready")
    asked = machine.once("worker", "python", health, "work", raw=True, more=CONNECTED)
    _expect(asked.returncode == 0, f"the worker does not answer its health check: {asked.stdout}")
    _say("roles: web, serving, work, ticks, beat and two agents run; health checks pass")
    _check_pages(web)
    _check_story(machine, folder, web, serving)
    for one in started:
        _say(f"stopped {one.role} in {one.stop():.1f} s")


def _is_well(machine: Machine, target: str, health: str, words: Mapping[str, str]) -> bool:
    return machine.once(target, "python", health, raw=True, more=words).returncode == 0


def _check_pages(web: str) -> None:
    status, page = _get(web, "/admin/login/")
    _expect(status == 200, f"the admin's login page answers {status}")
    sheet = next(one for one in page.split('"') if one.startswith("/static/") and ".css" in one)
    _expect(_get(web, sheet)[0] == 200, f"{sheet} was not collected")
    _say(f"pages: the login page, and {sheet} from the image")


def _check_story(machine: Machine, folder: Path, web: str, serving: str) -> None:
    """Train, upload, validate, release, predict at both nodes; the record reaches the table."""
    who = json.loads(machine.once("web", "manage", "bootstrap", "--json", more=CONTROL).stdout)
    key_file = folder / "demo.key"
    facts = {
        "MLP_DEMO_URL": f"http://{web}",
        "MLP_DEMO_TOKEN": who["token"],
        "MLP_DEMO_KEY_FILE": str(key_file),
    }
    _must(sys.executable, "-m", "demo", env={**os.environ, **facts})
    question = json.loads((ROOT / "demo" / "examples.json").read_text(encoding="utf-8"))["wine"]
    key = key_file.read_text(encoding="ascii").strip()
    _until(lambda: _predict(serving, question, key) is not None, "serving answers")
    _say(f"a prediction of serving: {_predict(serving, question, key)}")
    _until(lambda: _rows(machine) >= 2, "predictions of both nodes are in the table")
    _say(f"rows in the table: {_rows(machine)}")
    chain = machine.once("web", "manage", "verify_audit", "--seal", more=CONTROL)
    _expect(chain.returncode == 0, chain.stdout + chain.stderr)
    _say(f"audit: {chain.stdout.strip().splitlines()[0]}")


def _rows(machine: Machine) -> int:
    words = "from apps.inference.models import Prediction as P; print('rows', P.objects.count())"
    said = machine.once("web", "manage", "shell", "-v", "0", "-c", words, more=CONTROL).stdout
    return int(said.split("rows")[-1])


# --- asking ---------------------------------------------------------------------------------------


def _get(address: str, path: str) -> tuple[int, str]:
    return _ask(urllib.request.Request(f"http://{address}{path}"))


def _predict(address: str, question: Mapping[str, Any], key: str) -> str | None:
    """Return the answer, or None while the release has not arrived."""
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    body = json.dumps(question).encode()
    url = f"http://{address}/api/v1/predict/wine"
    status, answer = _ask(urllib.request.Request(url, data=body, headers=headers))
    return answer if status == 200 else None


def _ask(request: urllib.request.Request) -> tuple[int, str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.read().decode("utf-8")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")
    except OSError:
        return 0, ""


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise CheckFailed(f"It never happened that {what}.")
        time.sleep(0.5)


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise CheckFailed(otherwise)


def _must(*command: str, env: Mapping[str, str] | None = None) -> None:
    subprocess.run(command, check=True, cwd=ROOT, env=env)


def _said(*command: str) -> str:
    done = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def _say(line: str) -> None:
    print(line, flush=True)


# --- the command line -----------------------------------------------------------------------------


def main(argv: Sequence[str]) -> int:
    """Do what the command line says."""
    asked = _parse(argv)
    try:
        if asked.act == "base":
            make_base(asked.mirror)
        elif asked.act == "build":
            for target in asked.targets or TARGETS:
                build(target, base=asked.base, pip_conf=asked.pip_conf, volumes=asked.volume)
        elif asked.act == "check":
            check()
        else:
            subprocess.run([*BUILDAH, "rmi", *map(name_of, TARGETS), asked.base], check=False)
    except (CheckFailed, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.images")
    parser.add_argument("act", choices=["base", "build", "check", "clean"])
    parser.add_argument("targets", nargs="*", help="targets to build; default: all but native")
    parser.add_argument("--base", default=BASE, help="image that the targets stand on")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian", help="for `base`")
    parser.add_argument("--pip-conf", default="", help="file with pip's configuration")
    parser.add_argument("--volume", action="append", default=[], help="for the build alone")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
