"""The outbound client goes only where it may, to the address it judged, and never for long."""

import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpcore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from apps.core import http
from apps.core.errors import PlatformError

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
PUBLIC = "93.184.215.14"
PRIVATE = (
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.8.8.8",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.7",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::127.0.0.1",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "no address",
)


class Server:
    """A listener on loopback that hands each connection to a function, in threads of its own."""

    def __init__(self, talk: Callable[[Any], None], context: ssl.SSLContext | None) -> None:
        self._talk, self._context = talk, context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.asked: list[bytes] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                line, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(line,), daemon=True).start()

    def _serve(self, line: socket.socket) -> None:
        try:
            if self._context is not None:
                line = self._context.wrap_socket(line, server_side=True)
            with line:
                self._read(line)
                self._talk(line)
        except OSError:
            return

    def _read(self, line: socket.socket) -> None:
        asked = b""
        while b"\r\n\r\n" not in asked:
            part = line.recv(65536)
            if not part:
                break
            asked += part
        self.asked.append(asked)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept
        self._socket.close()


@contextmanager
def served(talk: Callable[[Any], None], context: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(talk, context)
    try:
        yield server
    finally:
        server.close()


def says(text: bytes) -> Callable[[Any], None]:
    return lambda line: line.sendall(text)


@pytest.fixture(autouse=True)
def outbound(settings: Any) -> Any:
    http.forget_breakers()
    settings.OUTBOUND_ALLOW = frozenset({"127.0.0.1"})
    settings.OUTBOUND_PORTS = frozenset({443})
    settings.OUTBOUND_PROXY = ""
    return settings


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names and their addresses; each look-up of a name takes the next entry of its list."""
    known: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *rest: Any, **more: Any) -> Any:
        if host not in known:
            return real(host, port, *rest, **more)
        found = known[host].pop(0) if len(known[host]) > 1 else known[host][0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found.split()]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What was connected to; public addresses are not really reached from a test."""
    made: list[tuple[str, int]] = []
    real = socket.create_connection

    def connect(address: tuple[str, int], *rest: Any, **more: Any) -> Any:
        made.append(address)
        if http.is_public(address[0]):
            raise ConnectionRefusedError
        return real(address, *rest, **more)

    monkeypatch.setattr(socket, "create_connection", connect)
    return made


# -- where it goes -----------------------------------------------------------------------------


@pytest.mark.parametrize("address", PRIVATE)
def test_no_address_but_a_public_one_is_public(address: str) -> None:
    assert not http.is_public(address)


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "172.32.0.1", "2606:2800:220:1::1"])
def test_an_address_of_the_open_internet_is_public(address: str) -> None:
    assert http.is_public(address)


@pytest.mark.parametrize("address", [one for one in PRIVATE if ":" not in one and " " not in one])
def test_a_name_of_a_private_address_is_never_connected_to(
    address: str, resolver: dict[str, list[str]], connections: list[tuple[str, int]]
) -> None:
    resolver["evil.example"] = [address]
    with pytest.raises(http.OutboundRefused):
        http.send("GET", "https://evil.example/")
    assert connections == []


def test_a_name_with_one_private_address_among_public_ones_is_refused(
    resolver: dict[str, list[str]], connections: list[tuple[str, int]]
) -> None:
    resolver["mixed.example"] = [f"{PUBLIC} 10.0.0.1"]
    with pytest.raises(http.OutboundRefused):
        http.send("GET", "https://mixed.example/")
    assert connections == []


def test_the_address_that_was_judged_is_the_one_connected_to_however_the_name_turns(
    resolver: dict[str, list[str]], connections: list[tuple[str, int]]
) -> None:
    resolver["rebind.example"] = [PUBLIC, "127.0.0.1"]
    with pytest.raises(http.OutboundUnavailable):
        http.send("GET", "https://rebind.example/", is_repeatable=False)
    assert connections == [(PUBLIC, 443)]
    assert resolver["rebind.example"] == ["127.0.0.1"], "the name was looked up once"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "https://example.org:8443/",
        "https://name:word@example.org/",
        "https://name@example.org/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "gopher://example.org/",
        "//example.org/",
        "https://",
        "no url at all",
        "https://exa mple.org/",
        "https://[::1/",
    ],
)
def test_only_https_on_known_ports_without_credentials_is_a_way_out(
    url: str, connections: list[tuple[str, int]]
) -> None:
    with pytest.raises(http.OutboundRefused) as refused:
        http.send("GET", url)
    assert not refused.value.retryable
    assert connections == []


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.2/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://2130706434/",
        "https://0x7f000002/",
        "https://127.2/",
        "https://localhost/",
        "https://LOCALHOST./",
    ],
)
def test_loopback_is_refused_however_it_is_written(
    url: str, connections: list[tuple[str, int]]
) -> None:
    with pytest.raises((http.OutboundRefused, http.OutboundUnavailable)):
        http.send("GET", url)
    assert connections == []


def test_an_allowed_port_does_not_allow_the_others(outbound: Any) -> None:
    with served(says(OK)) as one, served(says(OK)) as other:
        outbound.OUTBOUND_ALLOW = frozenset({f"127.0.0.1:{one.port}"})
        assert http.send("GET", f"http://127.0.0.1:{one.port}/").body == b"ok"
        with pytest.raises(http.OutboundRefused):
            http.send("GET", f"http://127.0.0.1:{other.port}/")


def test_a_configured_port_is_a_way_out(
    outbound: Any,
    resolver: dict[str, list[str]],
    connections: list[tuple[str, int]],
) -> None:
    outbound.OUTBOUND_PORTS = frozenset({443, 8443})
    resolver["example.org"] = [PUBLIC]
    with pytest.raises(http.OutboundUnavailable):
        http.send("GET", "https://example.org:8443/", is_repeatable=False)
    assert connections == [(PUBLIC, 8443)]


# -- what comes back ---------------------------------------------------------------------------


def test_an_allowed_host_gets_the_document_and_its_answer_comes_back() -> None:
    with served(says(OK)) as server:
        answer = http.post_json(f"http://127.0.0.1:{server.port}/hook?a=1", {"text": "hä"})
        assert (answer.status, answer.body) == (200, b"ok")
    asked = server.asked[0]
    assert asked.startswith(b"POST /hook?a=1 HTTP/1.1\r\n")
    assert f"host: 127.0.0.1:{server.port}".encode() in asked.lower()
    assert asked.lower().count(b"\r\nhost:") == asked.lower().count(b"\r\ncontent-length:") == 1


def test_a_redirect_is_not_followed() -> None:
    with served(says(OK)) as target:
        there = f"http://127.0.0.1:{target.port}/"
        moved = f"HTTP/1.1 302 Found\r\nlocation: {there}\r\ncontent-length: 0\r\n\r\n".encode()
        with served(says(moved)) as server, pytest.raises(http.OutboundRedirected) as refused:
            http.send("GET", f"http://127.0.0.1:{server.port}/")
        assert not refused.value.retryable
        assert target.asked == []


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_slow_drip_ends_with_the_exchange(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TOTAL_SECONDS", 0.5)
    over = threading.Event()

    def drip(line: socket.socket) -> None:
        if part == "body":
            line.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        else:
            line.sendall(b"HTTP/1.1 200 OK\r\nx-long: ")
        while not over.wait(0.05):
            line.sendall(b"a")

    with served(drip) as server:
        with pytest.raises(http.OutboundUnavailable) as late:
            http.send("GET", f"http://127.0.0.1:{server.port}/")
        over.set()
    assert late.value.retryable


def test_of_a_huge_body_only_64_kilobytes_are_read() -> None:
    sent: list[int] = []

    def flood(line: socket.socket) -> None:
        line.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
        for _ in range(2000):
            line.sendall(chunk)
            sent.append(len(chunk))

    with served(flood) as server:
        answer = http.send("GET", f"http://127.0.0.1:{server.port}/")
    assert (len(answer.body), answer.is_cut) == (64 * 1024, True)
    assert sum(sent) < 2000 * 0x10000, "the flood was cut off"


def test_a_packed_answer_is_not_unpacked() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x8b\x08\x00"
    with served(says(head)) as server:
        assert http.send("GET", f"http://127.0.0.1:{server.port}/").body == b"\x1f\x8b\x08\x00"
    assert b"accept-encoding: identity" in server.asked[0].lower()


def test_what_is_not_http_is_a_failure_that_may_pass() -> None:
    with served(says(b"SSH-2.0-x\r\n")) as server, pytest.raises(http.OutboundUnavailable):
        http.send("GET", f"http://127.0.0.1:{server.port}/")


def test_a_closed_port_is_a_failure_that_may_pass() -> None:
    with served(says(OK)) as server:
        port = server.port
    with pytest.raises(http.OutboundUnavailable):
        http.send("GET", f"http://127.0.0.1:{port}/")


def test_an_unknown_name_is_a_failure_that_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(http.OutboundUnavailable, match="No address"):
        http.send("GET", "https://nobody.example/")


def test_a_resolver_that_hangs_does_not_hold_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(http, "TOTAL_SECONDS", 0.2)

    def hang(*_: Any, **__: Any) -> Any:
        over.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "late")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        with pytest.raises(http.OutboundUnavailable):
            http.send("GET", "https://slow.example/")
    finally:
        over.set()


def test_an_error_never_repeats_the_path_which_may_be_a_secret() -> None:
    with served(says(OK)) as server:
        port = server.port
    urls = (f"http://127.0.0.1:{port}/T0/S3CRET", "http://example.org/S3CRET")
    for url in urls:
        with pytest.raises(PlatformError) as failed:
            http.send("GET", url)
        assert "S3CRET" not in failed.value.message


@pytest.mark.parametrize(
    ("status", "retryable"), [(400, False), (404, False), (408, True), (429, True), (503, True)]
)
def test_an_answer_says_whether_asking_again_may_help(status: int, retryable: bool) -> None:
    with pytest.raises(PlatformError) as refused:
        http.require_success(http.Answer(status, {}, b""), "It")
    assert refused.value.retryable is retryable


def test_an_answer_that_says_yes_is_a_success() -> None:
    http.require_success(http.Answer(204, {}, b""), "It")


# -- who answers -------------------------------------------------------------------------------


def certificate(folder: Path, name: x509.GeneralName) -> tuple[ssl.SSLContext, Path]:
    """A self-signed certificate for a name, and the file to trust it by."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    trusted, private = folder / "cert.pem", folder / "key.pem"
    trusted.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, private)
    return context, trusted


def test_the_name_of_the_url_is_what_the_certificate_must_prove(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    outbound: Any,
    resolver: dict[str, list[str]],
) -> None:
    context, trusted = certificate(tmp_path, x509.DNSName("hooks.example"))
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    names: list[str | None] = []
    context.sni_callback = lambda _, name, __: names.append(name)
    resolver["hooks.example"] = resolver["other.example"] = ["127.0.0.1"]
    with served(says(OK), context) as server:
        outbound.OUTBOUND_ALLOW = frozenset({"hooks.example", "other.example"})
        assert http.send("GET", f"https://hooks.example:{server.port}/").body == b"ok"
        with pytest.raises(http.OutboundUntrusted) as refused:
            http.send("GET", f"https://other.example:{server.port}/")
    assert not refused.value.retryable
    assert names == ["hooks.example", "other.example"]


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path, outbound: Any) -> None:
    context, _ = certificate(tmp_path, x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    with served(says(OK), context) as server, pytest.raises(http.OutboundUntrusted):
        http.send("GET", f"https://127.0.0.1:{server.port}/")


# -- through the operator's proxy --------------------------------------------------------------


def tunnel(line: socket.socket) -> None:
    """Be a proxy that connects whatever is asked for to a server that says yes."""
    line.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    line.recv(65536)
    line.sendall(OK)


def test_the_proxy_is_asked_for_the_judged_address(outbound: Any) -> None:
    with served(tunnel) as proxy:
        outbound.OUTBOUND_PROXY = f"http://me:word@127.0.0.1:{proxy.port}"
        assert http.send("GET", "http://127.0.0.1:81/x").body == b"ok"
    asked = proxy.asked[0]
    assert asked.startswith(b"CONNECT 127.0.0.1:81 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic bWU6d29yZA==" in asked


def test_a_private_address_is_refused_before_the_proxy_hears_of_it(
    outbound: Any, resolver: dict[str, list[str]]
) -> None:
    resolver["evil.example"] = ["169.254.169.254"]
    with served(tunnel) as proxy:
        outbound.OUTBOUND_PROXY = f"http://127.0.0.1:{proxy.port}"
        with pytest.raises(http.OutboundRefused):
            http.send("GET", "https://evil.example/")
    assert proxy.asked == []


def test_a_proxy_that_refuses_is_a_failure_that_may_pass(outbound: Any) -> None:
    with served(says(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")) as proxy:
        outbound.OUTBOUND_PROXY = f"http://127.0.0.1:{proxy.port}"
        with pytest.raises(http.OutboundUnavailable):
            http.send("GET", "http://127.0.0.1:81/x")


def test_an_address_that_never_answers_leaves_time_for_the_next(
    resolver: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, waits = socket.create_connection, []

    def connect(address: tuple[str, int], timeout: float, **more: Any) -> Any:
        if address[0] == "127.0.0.9":
            waits.append(timeout)
            raise TimeoutError
        return real(address, timeout, **more)

    monkeypatch.setattr(socket, "create_connection", connect)
    with served(says(OK)) as server:
        resolver["two.example.org"] = ["127.0.0.9 127.0.0.1"]
        monkeypatch.setattr(http, "_is_allowed", lambda *_: True)
        assert http.send("GET", f"http://two.example.org:{server.port}/").body == b"ok"
    assert 0 < waits[0] <= http.TOTAL_SECONDS / 2


def test_time_is_counted_over_all_addresses_together() -> None:
    deadline = http._Deadline(0.0)
    time.sleep(0.001)
    with pytest.raises(httpcore.ConnectTimeout):
        http._connected("127.0.0.1", 1, deadline)
