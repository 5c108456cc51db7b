"""What leaves this installation by a URL passes `core.http`; other ways out are named, with why."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CLIENTS = (
    "aiohttp",
    "boto3",
    "ftplib",
    "http.client",
    "httpcore",
    "httpx",
    "redis",
    "requests",
    "smtplib",
    "socket",
    "urllib.request",
    "urllib3",
    "websockets",
)
ALLOWED = {
    "apps/core/http.py": "the one client",
    "apps/accounts/sso/adapters.py": "only the errors that allauth's session raises",
    "apps/accounts/sso/outbound.py": "allauth's session, carried by core.http",
    "apps/accounts/sso/views.py": "only the errors that allauth's session raises",
    "apps/inference/clients/serving.py": "the operator's own serving role, MLP_SERVING_URL",
    "apps/monitoring/clients/mail.py": "only the errors of the operator's mail server",
    "apps/accounts/services/invitations.py": "only the errors of the operator's mail server",
    "apps/accounts/services/throttles.py": "only the errors of the operator's Redis",
    "apps/accounts/counters/redis_store.py": "the operator's own Redis, REDIS_URL",
    "apps/core/anchors.py": "the operator's own bucket, MLP_AUDIT_ANCHOR",
    "apps/accounts/wiring.py": "the host's name only",
    "apps/inference/worker_status.py": "the host's name only",
    "apps/inference/journal_db/direct.py": "the host's name only",
    "apps/inference/journal_db/manifest.py": "the host's name only",
    "apps/core/management/commands/dev.py": "asks its own web server on loopback",
}


def imports_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{one.name}" for one in node.names)


def goes_out(file: Path) -> bool:
    return any(
        one == name or one.startswith(f"{name}.") for one in imports_of(file) for name in CLIENTS
    )


def test_only_the_named_modules_know_a_client_of_the_network() -> None:
    files = [*(ROOT / "apps").rglob("*.py"), *(ROOT / "mlplatform").rglob("*.py")]
    assert len(files) > 150
    found = {str(one.relative_to(ROOT)) for one in files if goes_out(one)}
    assert found - ALLOWED.keys() == set(), "use apps.core.http, or say here why not"
    assert ALLOWED.keys() - found == set(), "these need no exception any more"


def test_modules_that_only_want_the_hosts_name_ask_for_nothing_else() -> None:
    for path, why in ALLOWED.items():
        if why == "the host's name only":
            text = (ROOT / path).read_text(encoding="utf-8")
            assert text.count("socket.") == text.count("socket.gethostname"), path
