"""Bring the demo's models live and leave a key: ``python -m demo``.

Reads MLP_DEMO_URL (address of the platform), MLP_DEMO_TOKEN (a person's access token) and
MLP_DEMO_KEY_FILE (where the key is kept). What is there already is left as it is.
"""

import json
import os
import sys
from pathlib import Path

from demo.files import NAMES, examples
from demo.platform import DemoError, Made, Platform

SHOWN = "wine"
KEY_NAME = "demo"


def main() -> int:
    """Do what is still to be done and print a request that works."""
    url = os.environ.get("MLP_DEMO_URL", "http://127.0.0.1:8000")
    key_file = Path(os.environ.get("MLP_DEMO_KEY_FILE", "var/demo.key"))
    try:
        with Platform(url, os.environ.get("MLP_DEMO_TOKEN", "")) as platform:
            key = kept_key(platform, key_file)
            if key is None:
                key = set_up(platform, key_file)
            print_request(platform, key)
    except DemoError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def kept_key(platform: Platform, key_file: Path) -> str | None:
    """Return the key of an earlier run if every model still answers to it."""
    try:
        key = key_file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    questions = examples()
    return key if all(platform.accepts(name, questions[name], key) for name in NAMES) else None


def set_up(platform: Platform, key_file: Path) -> str:
    """Train, upload and release what is missing, then make the key."""
    for name in NAMES:
        bring_live(platform, name)
    key = platform.make_key(KEY_NAME)
    keep(key_file, key)
    for name in NAMES:
        platform.answer(name, examples()[name], key)
    return key


def bring_live(platform: Platform, name: str) -> None:
    """See to it that a model answers in production."""
    if platform.live_version(name) is not None:
        return
    version = platform.newest_good(name) or train_and_upload(platform, name)
    platform.wait_until_ready(name, version.number)
    reason = "First version of the demo, judged on held-out rows"
    platform.release(name, version.number, reason)
    print(f"{name} {version.number} answers in production")


def train_and_upload(platform: Platform, name: str) -> Made:
    """Train one model and upload its file."""
    from demo.training import TRAINERS  # noqa: PLC0415 - seconds that a second run does not need

    trained = TRAINERS[name]()
    found = ", ".join(f"{metric} {value:.3f}" for metric, value in trained.metrics.items())
    print(f"Trained {name}: {found} on held-out rows; uploading {trained.filename}")
    return platform.upload(trained)


def keep(path: Path, key: str) -> None:
    """Write the key for its owner's eyes only, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(key + "\n")
    draft.replace(path)


def print_request(platform: Platform, key: str) -> None:
    """Print a request for the shell, and what it answers."""
    question = examples()[SHOWN]
    answer = platform.answer(SHOWN, question, key)
    print("Ask it yourself:\n")
    print(f"curl -s {platform.url}/api/v1/predict/{SHOWN} \\")
    print(f"  -H 'X-API-Key: {key}' -H 'Content-Type: application/json' \\")
    print(f"  -d '{json.dumps(question)}'\n")
    print(f"It answers: {json.dumps(answer)}")


if __name__ == "__main__":
    sys.exit(main())
