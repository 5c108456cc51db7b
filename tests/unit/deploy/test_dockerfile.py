"""The Dockerfile: four targets, nobody's machine in it, nothing that writes to its root."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "deploy" / "docker"
TEXT = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
TARGETS = ("serving", "serving-native", "web", "worker")
INSTALLED = "/opt/mlplatform/app/"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: its name, what it stands on, and its instructions."""

    name: str
    base: str
    lines: tuple[str, ...]

    def all(self, word: str) -> list[str]:
        return [line[len(word) :].strip() for line in self.lines if line.startswith(f"{word} ")]


def stages() -> dict[str, Stage]:
    found: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    current = ""
    for line in instructions():
        start = re.fullmatch(r"FROM (\S+) AS (\S+)", line)
        if start:
            current = start[2]
            names[current] = start[1]
            found[current] = []
        elif current:
            found[current].append(line)
    return {name: Stage(name, names[name], tuple(lines)) for name, lines in found.items()}


def instructions() -> list[str]:
    """One instruction per entry: comments dropped, continued lines joined."""
    lines = [line for line in TEXT.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [line.strip() for line in joined.splitlines() if line.strip()]


def roles() -> set[str]:
    """The words that the entry point knows."""
    script = (FOLDER / "entrypoint").read_text(encoding="utf-8")
    lines = re.findall(r"^([a-z][a-z| -]*)\)$", script, re.MULTILINE)
    return {word.strip() for line in lines for word in line.split("|")}


def test_there_is_a_target_for_every_kind_of_process() -> None:
    assert set(TARGETS) <= set(stages())


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_stands_on_the_runtime_that_drops_root(target: str) -> None:
    stage = stages()[target]
    assert stage.base == "runtime"
    assert stage.all("USER") == []
    assert stages()["runtime"].all("USER") == ["10001:10001"]


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_starts_a_role_and_says_how_it_is(target: str) -> None:
    stage = stages()[target]
    (command,) = stage.all("CMD")
    assert command.strip('[]"') in roles()
    (health,) = stage.all("HEALTHCHECK")
    (script,) = re.findall(rf'"{INSTALLED}([^"]+)"', health)
    assert (ROOT / script).is_file()


def test_the_entry_point_is_a_program_that_the_image_contains() -> None:
    (entry,) = stages()["runtime"].all("ENTRYPOINT")
    file = ROOT / entry.strip('[]"').removeprefix(INSTALLED)
    assert file.stat().st_mode & 0o111


def test_the_base_is_an_argument_and_its_default_a_fixed_version() -> None:
    (base,) = re.findall(r"^ARG BASE_IMAGE=(\S+)$", TEXT, re.MULTILINE)
    assert re.search(r":\d+\.\d+\.\d+-", base)
    assert {stage.base for stage in stages().values()} - set(stages()) == {"${BASE_IMAGE}"}


def test_only_the_serving_targets_differ_in_what_they_can_open() -> None:
    """ONNX alone in `serving` and `web`: the frameworks are in stages that they do not copy."""
    for target in ("serving", "web"):
        copies = " ".join(stages()[target].all("COPY"))
        assert "--from=base-libraries" in copies
    base = stages()["base-libraries"].all("RUN")
    assert [name for run in base for name in re.findall(r"requirements/(\S+)\.txt", run)] == [
        "base"
    ]


def test_every_list_of_libraries_that_is_named_exists() -> None:
    named = set(re.findall(r"requirements/([a-z-]+)\.txt", TEXT))
    formats = re.findall(r"^ARG MLP_[A-Z]+_FORMATS=(\S+)$", TEXT, re.MULTILINE)
    named |= {f"runtimes-{one}" for words in formats for one in words.split(",")}
    assert {"base", "worker", "runtimes-sklearn", "runtimes-torch"} <= named
    assert [name for name in named if not (ROOT / "requirements" / f"{name}.txt").is_file()] == []


def test_libraries_are_installed_with_their_hashes() -> None:
    for name in ("base", "worker"):
        assert re.search(
            rf"--require-hashes[^&]*requirements/{name}\.txt", " ".join(instructions())
        )


def test_no_index_no_proxy_and_no_secret_stands_in_the_file() -> None:
    assert not re.search(
        r"https?://|--index|--extra-index|--trusted-host|_proxy=", TEXT, re.IGNORECASE
    )
    names = re.findall(r"^\s*(?:ARG|ENV)?\s*([A-Z_]+)=", TEXT, re.MULTILINE)
    assert [name for name in names if re.search(r"KEY|PASSWORD|TOKEN|SECRET", name)] == []


def test_the_installer_stays_behind() -> None:
    for target in TARGETS:
        copied = [line.split()[1] for line in stages()[target].all("COPY")]
        assert copied
        assert "/opt/installer" not in copied


def test_a_process_is_asked_to_end_politely() -> None:
    assert stages()["runtime"].all("STOPSIGNAL") == ["SIGTERM"]


def test_only_the_two_volumes_belong_to_the_processes() -> None:
    runtime = stages()["runtime"]
    (volumes,) = runtime.all("VOLUME")
    declared = set(re.findall(r'"([^"]+)"', volumes))
    assert declared == {"/var/lib/mlplatform/data", "/var/lib/mlplatform/node"}
    written = re.findall(r"(MLP_(?:DATA|SERVING|SPOOL)_DIR)=(\S+)", " ".join(runtime.lines))
    assert len(written) == 3
    assert [path for _, path in written if not path.startswith(tuple(declared))] == []


def test_the_build_context_holds_what_runs_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {line[1:] for line in rules if line.startswith("!")}
    assert {"apps", "mlplatform", "templates", "static", "manage.py"} <= let_in
    assert not {one.split("/")[0] for one in let_in} & {"tests", "var", "docs", ".git", ".env"}
    of_deploy = {one for one in let_in if one.startswith("deploy")}
    assert of_deploy == {f"deploy/docker/{one}" for one in ("entrypoint", "health.py", "bucket.py")}
    assert "**/.env" in rules


def test_a_list_on_top_of_base_takes_no_other_version_of_what_base_has() -> None:
    """It is installed over base, and would change what every other image runs with."""

    def pins(name: str) -> dict[str, str]:
        text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
        pinned = r"^([a-z0-9][a-z0-9._-]*)(?:\[[a-z0-9,-]+\])?==([^\s;\\]+)"
        return dict(re.findall(pinned, text, re.MULTILINE))

    base = pins("base")
    for name in ("worker", "runtimes-sklearn", "runtimes-torch"):
        one = pins(name)
        assert one
        shared = one.keys() & base.keys()
        assert {package: one[package] for package in shared} == {p: base[p] for p in shared}
