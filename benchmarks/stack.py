"""A whole platform of its own for one measurement: PostgreSQL, `manage.py dev`, two tiny models.

It is what `make run` starts, in a temporary folder on free ports, and is ended by pid afterwards.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from scripts import services

ROOT = Path(__file__).resolve().parents[1]
READY_SECONDS = 90.0


def tiny_model(shift: float) -> bytes:
    """Four numbers to three, ``x @ w + shift``: two versions differ by their shift alone."""
    weights = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["xw"]),
            helper.make_node("Add", ["xw", "b"], ["scores"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 3])],
        [
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(np.full(3, shift, dtype=np.float32), "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@dataclass(slots=True)
class Database:
    """A private PostgreSQL that can be stopped and started again on the same port and data."""

    running: services.Running
    folder: Path

    @property
    def url(self) -> str:
        """Address of the database."""
        return self.running.url

    def stop(self) -> None:
        """Stop it as an operator would, clients sent away."""
        services.stop(self.running)

    def start(self) -> None:
        """Start it again."""
        with (self.folder / "postgres.log").open("ab") as log:
            process = subprocess.Popen(
                self.running.process.args, stdout=log, stderr=log, cwd="/", start_new_session=True
            )
        self.running = services.Running(self.url, process, self.running.stop_signal)


@dataclass(slots=True)
class Stack:
    """A running platform."""

    url: str
    data_dir: Path
    environment: dict[str, str]
    process: "subprocess.Popen[bytes]"
    database: Database | None = None
    token: str = ""
    key: str = ""
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=60))

    def manage(self, *words: str) -> str:
        """Run one management command of this platform and return what it printed."""
        done = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=ROOT,
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Call the API as the administrator; raises for what is not 2xx."""
        headers = {"Authorization": f"Bearer {self.token}"}
        reply = self.http.request(method, self.url + path, headers=headers, **more)
        if reply.is_error:
            raise RuntimeError(f"{method} {path}: {reply.status_code} {reply.text[:500]}")
        return reply

    def upload(self, model: str, data: bytes, filename: str = "model.onnx") -> int:
        """Upload one version, wait for its verdict, return its number."""
        reply = self.call(
            "POST",
            "/api/v1/models/upload",
            data={"name": model},
            files={"file": (filename, data)},
        )
        number: int = reply.json()["number"]
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            version = self.call("GET", f"/api/v1/models/{model}/versions/{number}").json()
            if version["state"] == "ready":
                return number
            if version["state"] == "rejected":
                raise RuntimeError(f"{model} {number} was rejected: {version['report']}")
            time.sleep(0.3)
        raise RuntimeError(f"{model} {number} was not judged in three minutes.")

    def release(self, model: str, version: int, reason: str = "measurement") -> float:
        """Release to production; return the second at which the 201 had arrived."""
        path = f"/api/v1/models/{model}/endpoints/production/releases"
        reply = self.call("POST", path, json={"version": version, "reason": reason})
        if reply.status_code != httpx.codes.CREATED:
            raise RuntimeError(f"The release is not live: {reply.text}")
        return time.time()

    def workers(self) -> list[int]:
        """Pids of the serving workers: the children of gunicorn's parent process."""
        parents = [
            pid
            for pid in _pids()
            if b"gunicorn" in _file(pid, "cmdline") and _parent(pid) == self.process.pid
        ]
        return [pid for pid in _pids() if _parent(pid) in parents]

    def wait_for(self, path: str, seconds: float = READY_SECONDS) -> None:
        """Wait until an address answers 200."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                if self.http.get(self.url + path).status_code == httpx.codes.OK:
                    return
            if self.process.poll() is not None:
                raise RuntimeError("The platform ended by itself; its log is in its folder.")
            time.sleep(0.2)
        raise RuntimeError(f"{path} did not answer 200 in {seconds} s.")

    def prediction_counts(self, ids: set[str]) -> tuple[int, int]:
        """Return how many of these ids are in the log, and how many rows carry one of them."""
        code = (
            "import json,sys; from apps.inference.models import Prediction; "
            "print('COUNT', json.dumps([str(i) for i in "
            "Prediction.objects.values_list('id', flat=True)]))"
        )
        said = next(
            line for line in self.manage("shell", "-c", code).splitlines() if line[:5] == "COUNT"
        )
        stored = [one for one in json.loads(said[6:]) if one in ids]
        return len(set(stored)), len(stored)


def _pids() -> list[int]:
    return [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()]


def _file(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _parent(pid: int) -> int:
    stat = _file(pid, "stat").rpartition(b")")[2].split()
    return int(stat[1]) if len(stat) > 1 else 0


@contextlib.contextmanager
def stack(*, workers: int = 2, postgres: bool = True, **settings: str) -> Iterator[Stack]:
    """Start a platform; end it and remove its folder afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="mlplatform-stack-"))
    folder.chmod(0o755)
    database = None
    process = None
    try:
        environment = {
            **os.environ,
            "MLP_ENV_FILE": "0",
            "MLP_DATA_DIR": str(folder / "var"),
            "MLP_BIND": f"127.0.0.1:{services.free_port()}",
            "MLP_DEMO": "0",
            "WEB_CONCURRENCY": str(workers),
            **settings,
        }
        environment.pop("DJANGO_SETTINGS_MODULE", None)
        if postgres:
            (folder / "postgres").mkdir()
            running = services.start_postgres(folder / "postgres")
            database = Database(running, folder / "postgres")
            environment["DATABASE_URL"] = running.url
        with (folder / "dev.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "dev"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        made = Stack(
            f"http://{environment['MLP_BIND']}", folder / "var", environment, process, database
        )
        made.wait_for("/health/live")
        with contextlib.closing(made.http):
            _make_callers(made)
            yield made
    except BaseException:
        with contextlib.suppress(OSError):
            sys.stderr.write((folder / "dev.log").read_text(errors="replace")[-4000:])
        raise
    finally:
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
        if database is not None:
            database.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _make_callers(made: Stack) -> None:
    said = made.manage("bootstrap", "--json")
    made.token = json.loads(said.strip().splitlines()[-1])["token"]
    reply = made.call(
        "POST",
        "/api/v1/keys",
        json={"name": "load", "team": "demo", "scopes": ["predict"], "plan": "unlimited"},
    )
    made.key = reply.json()["key"]
