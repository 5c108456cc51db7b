"""``deploy/compose.yaml``: hardened everywhere, and every name in it is one that somebody knows."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
TEXT = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name for name, one in SERVICES.items() if "mlplatform-" in one["image"]}
# Read by gunicorn's settings, by the store's client and by the entry point.
NOT_SETTINGS = {"WEB_CONCURRENCY", "AWS_SHARED_CREDENTIALS_FILE", "DJANGO_SUPERUSER_PASSWORD_FILE"}


def names_in(file: Path) -> set[str]:
    return set(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", file.read_text(encoding="utf-8"), re.MULTILINE))


def secret_settings() -> set[str]:
    """Settings that can come from a file."""
    files = (ROOT / "mlplatform" / "settings").glob("*.py")
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    return set(re.findall(r'env\.secret\(\s*"([A-Z_]+)"', text))


def environment(name: str) -> dict[str, str]:
    return {key: str(value) for key, value in SERVICES[name].get("environment", {}).items()}


def volumes(name: str) -> dict[str, str]:
    """Where each volume of a service is seen."""
    return {one.split(":")[0]: one.split(":")[1] for one in SERVICES[name].get("volumes", [])}


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_hardened(name: str) -> None:
    one = SERVICES[name]
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert "cap_add" not in one
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in one
    assert "network_mode" not in one
    assert one["init"] is True
    assert one["pids_limit"]
    assert one["restart"] in {"unless-stopped", "no"}
    assert one["stop_grace_period"] == "45s"


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_has_a_fixed_version(name: str) -> None:
    (image,) = re.findall(r"^\$\{MLP_[A-Z]+_IMAGE:-(\S+)\}$", SERVICES[name]["image"])
    tag = image.rpartition(":")[2]
    assert re.match(r"\d+\.\d+", tag)
    assert "latest" not in image


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_says_how_it_is_or_why_nobody_asks(name: str) -> None:
    check = SERVICES[name].get("healthcheck")
    if check is None:  # the image's own
        assert name in {"web", "work"}
    elif check.get("disable"):
        assert name in {"init", "store-bucket", "beat"} or name.startswith("agent-")
    else:
        assert check["test"][0] in {"CMD", "CMD-SHELL"}


def test_every_variable_of_ours_is_a_setting() -> None:
    known = names_in(ROOT / ".env.example")
    known |= {f"{name}_FILE" for name in secret_settings()} | NOT_SETTINGS
    used = {key for name in OURS for key in environment(name)}
    assert len(used) > 10
    assert used - known == set()


@pytest.mark.parametrize("name", SERVICES)
def test_a_secret_is_a_file_that_its_container_has(name: str) -> None:
    one = SERVICES[name]
    words = [*environment(name).values(), *map(str, one.get("command", []))]
    words += map(str, one.get("healthcheck", {}).get("test", []))
    needed = {found for word in words for found in re.findall(r"/run/secrets/([a-z_]+)", word)}
    assert needed <= set(one.get("secrets", []))
    assert set(one.get("secrets", [])) <= set(COMPOSE["secrets"])
    plain = [key for key in environment(name) if re.search("PASSWORD|_KEY|_URL$|TOKEN", key)]
    assert [key for key in plain if not key.endswith(("_FILE", "ENDPOINT_URL"))] == []


def test_what_predicts_holds_no_credential_of_the_control_plane() -> None:
    assert set(SERVICES["serving"]["secrets"]) == {"secret_key", "jwt_public"}
    assert not [key for key in environment("serving") if re.match("DATABASE|REDIS|AWS", key)]
    assert SERVICES["serving"]["networks"] == ["outside"]


def test_the_private_token_key_is_only_where_people_sign_in() -> None:
    holders = {name for name, one in SERVICES.items() if "jwt_private" in one.get("secrets", [])}
    assert holders == {"web", "init"}


def test_database_queue_and_store_are_reached_from_inside_only() -> None:
    assert COMPOSE["networks"]["inside"]["internal"] is True
    for name in ("postgres", "redis", "store"):
        assert SERVICES[name]["networks"] == ["inside"]
        assert "ports" not in SERVICES[name]


def test_nothing_listens_beyond_this_machine_unless_told() -> None:
    ports = [port for one in SERVICES.values() for port in one.get("ports", [])]
    assert len(ports) == 2
    assert all(re.match(r"\$\{MLP_[A-Z]+_ADDRESS:-127\.0\.0\.1:\d+\}:8000$", one) for one in ports)


@pytest.mark.parametrize("node", ["web", "serving"])
def test_a_node_is_one_container_that_predicts_and_one_agent(node: str) -> None:
    """Their processes are told apart by process id, which two containers would share."""
    who = {name for name in SERVICES if f"node-{node}" in volumes(name)}
    assert who == {node, f"agent-{node}"}
    assert not [name for name in who if "deploy" in SERVICES[name] or "scale" in SERVICES[name]]


def test_volumes_lie_where_the_image_may_write() -> None:
    paths = {path for name in OURS for path in volumes(name).values()}
    assert paths == {"/var/lib/mlplatform/data", "/var/lib/mlplatform/node"}
    used = {volume for name in SERVICES for volume in volumes(name)}
    assert used == set(COMPOSE["volumes"])


def test_every_command_of_ours_is_a_word_of_the_entry_point() -> None:
    script = (DEPLOY / "docker" / "entrypoint").read_text(encoding="utf-8")
    lines = re.findall(r"^([a-z][a-z| -]*)\)$", script, re.MULTILINE)
    words = {word.strip() for line in lines for word in line.split("|")}
    asked = {SERVICES[name]["command"][0] for name in OURS if "command" in SERVICES[name]}
    assert {"init", "agent", "work", "ticks", "beat"} <= asked
    assert asked <= words


def test_there_is_one_clock_and_it_remembers() -> None:
    """A clock without its notes would never come to a daily task between two restarts."""
    clocks = [name for name in OURS if SERVICES[name].get("command") == ["beat"]]
    assert clocks == ["beat"]
    assert volumes("beat") == {"data": "/var/lib/mlplatform/data"}


def test_nothing_of_ours_starts_before_the_tables_are_there() -> None:
    for name in OURS - {"init", "store-bucket", "serving"}:
        wait = SERVICES[name]["depends_on"]
        assert wait["init"] == {"condition": "service_completed_successfully"}
    assert "depends_on" not in SERVICES["serving"]


def test_every_target_that_is_built_exists() -> None:
    text = (DEPLOY / "docker" / "Dockerfile").read_text(encoding="utf-8")
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE))
    built = {one["build"]["target"] for one in SERVICES.values() if "build" in one}
    assert {re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", target) for target in built} <= stages
    assert len(built) == 3


def test_the_sample_names_every_variable_of_the_file_and_no_other() -> None:
    of_compose_itself = {"COMPOSE_PROFILES"}
    used = set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)", TEXT))
    assert names_in(DEPLOY / ".env.example") == used | of_compose_itself


# --- the secrets ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("deploy/make-secrets needs openssl, which this machine lacks")
    folder = tmp_path_factory.mktemp("secrets") / "new"
    make(folder)
    return folder


def make(folder: Path) -> str:
    command = ["sh", str(DEPLOY / "make-secrets"), str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_every_secret_of_the_file_is_made(made: Path) -> None:
    assert {one.name for one in made.iterdir()} == set(COMPOSE["secrets"])
    for name, one in COMPOSE["secrets"].items():
        assert one == {"file": f"./secrets/{name}"}


def test_secrets_are_closed_to_others_by_their_folder(made: Path) -> None:
    assert made.stat().st_mode & 0o777 == 0o700
    assert {one.stat().st_mode & 0o777 for one in made.iterdir()} == {0o444}


def test_secrets_fit_each_other(made: Path) -> None:
    def text(name: str) -> str:
        return (made / name).read_text(encoding="ascii").strip()

    assert urlsplit(text("database_url")).password == text("postgres_password")
    assert f"requirepass {urlsplit(text('redis_url')).password}\n" in text("redis_conf")
    private = load_pem_private_key(text("jwt_private").encode(), None)
    assert isinstance(private, EllipticCurvePrivateKey)
    assert isinstance(private.curve, SECP256R1)
    assert load_pem_public_key(text("jwt_public").encode()) == private.public_key()
    (access, secret) = re.findall(r"= (\w+)$", text("store_credentials"), re.MULTILINE)
    (one,) = yaml.safe_load(text("store_config"))["identities"]
    assert one["credentials"] == [{"accessKey": access, "secretKey": secret}]


def test_making_secrets_again_changes_none(made: Path) -> None:
    before = {one.name: one.read_bytes() for one in made.iterdir()}
    said = make(made)
    assert {one.name: one.read_bytes() for one in made.iterdir()} == before
    assert "made" not in said


def test_secrets_stay_out_of_the_repository_and_of_the_images() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "/deploy/secrets/" in ignored
    assert ".env" in ignored
