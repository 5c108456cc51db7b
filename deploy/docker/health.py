"""Asks the process of this container how it is; exit 0 when it is well. Standard library only.

health.py              asks /health/live of a web or serving process
health.py /health/ready   asks another of its addresses
health.py work         asks the Celery worker of that queue through the broker
"""

import http.client
import os
import socket
import subprocess
import sys

ASK_SECONDS = 4.0
PONG_SECONDS = 10.0


def main(asked: str = "/health/live") -> int:
    """Ask once; the engine decides how often it must fail."""
    return _ask_http(asked) if asked.startswith("/") else _ask_worker(asked)


def host_header(allowed: str) -> str:
    """Return a host name that the process answers to; others are refused with 400."""
    first = allowed.partition(",")[0].strip().lstrip(".")
    return first if first not in {"", "*"} else "localhost"


def _ask_http(path: str) -> int:
    bind = os.environ.get("MLP_BIND") or "127.0.0.1:8000"
    link = http.client.HTTPConnection(
        "127.0.0.1", int(bind.rpartition(":")[2]), timeout=ASK_SECONDS
    )
    name = host_header(os.environ.get("MLP_ALLOWED_HOSTS", ""))
    try:
        link.request("GET", path, headers={"Host": name})
        answer = link.getresponse()
        word = answer.read(200).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return _say(f"{path} does not answer: {error}", well=False)
    finally:
        link.close()
    return _say(f"{path}: {word}", well=answer.status == http.client.OK)


def _ask_worker(queue: str) -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mlplatform.settings.worker")
    name = f"{queue}@{socket.gethostname()}"
    ping = ("inspect", "ping", "-d", name, "-t", str(PONG_SECONDS))
    done = subprocess.run(  # noqa: S603 - our own interpreter and words, no shell
        [sys.executable, "-m", "celery", "-A", "mlplatform.celery", *ping],
        check=False,
        capture_output=True,
        text=True,
    )
    return _say((done.stdout + done.stderr).strip()[-300:], well=done.returncode == 0)


def _say(words: str, *, well: bool) -> int:
    sys.stdout.write(f"{words}\n")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
