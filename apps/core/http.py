"""The one outbound HTTP client: webhooks and whatever else leaves this installation by a URL.

A URL may have been written by anybody, so it could point into the network that this process can
see and its author cannot. Hence: https on known ports only, no credentials in the URL, the name is
looked up once, every address found must be a public one, the connection goes to that very address
while TLS asks for the name, redirects are not followed, and time and answer are bounded. Hosts of
the operator's own network are reached by ``MLP_OUTBOUND_ALLOW`` only, never by a user's wish.

What may be repeated is tried again a few times within the same ten seconds; a host that failed
several times in a row is left alone for a while by this process (a breaker, whose state is a
metric).

Errors name the host and never the rest of the URL, which may hold a secret.
"""

import base64
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpcore
import httpx
import orjson
import pybreaker
import tenacity
from django.conf import settings

from apps.core import metrics
from apps.core.errors import PlatformError

TOTAL_SECONDS = 10.0
# Tries of a call that may be repeated, and the longest pauses between them, in seconds: random
# below 0.25, then below 0.5, so that many callers do not come back at the same moment.
MOST_TRIES = 3
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 1.0
# Failures in a row after which a host is left alone, and for how many seconds.
BREAKS_AFTER = 5
BROKEN_SECONDS = 30.0
MOST_BREAKERS = 256
# Asking these twice does what asking once does (RFC 9110, section 9.2.2).
REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
MOST_READ_BYTES = 64 * 1024
MOST_ADDRESSES = 3
DEFAULT_PORTS = {"http": 80, "https": 443}
AGENT = "mlplatform"
# A name as the resolver knows them, or an address; whatever else was hidden by the URL's encoding.
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:.]+")

_FORBIDDEN = tuple(
    ipaddress.ip_network(one)
    for one in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; a cloud's metadata lives here, too
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's metadata behind a public address
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "2001::/23",  # protocol assignments, Teredo
        "2001:db8::/32",
        "2002::/16",  # 6to4: an IPv4 address inside
        "3fff::/20",
    )
)
# All global unicast of IPv6; what maps or translates IPv4 (::ffff:0:0/96, 64:ff9b::/96), loopback,
# link-local, private and multicast addresses lie outside.
_UNICAST6 = ipaddress.ip_network("2000::/3")


class OutboundRefused(PlatformError):
    """The URL leads where this installation does not go."""

    code = "outbound_refused"
    status = HTTPStatus.BAD_REQUEST


class OutboundRedirected(OutboundRefused):
    """The answer points to another address."""

    code = "outbound_redirected"


class OutboundUntrusted(PlatformError):
    """The other side does not prove that it is who the URL names."""

    code = "outbound_untrusted"
    status = HTTPStatus.BAD_GATEWAY


class OutboundRejected(PlatformError):
    """The other side understood and said no; asking again says the same."""

    code = "outbound_rejected"
    status = HTTPStatus.BAD_GATEWAY


class OutboundUnavailable(PlatformError):
    """The other side does not answer, or says that it cannot now."""

    code = "outbound_unavailable"
    status = HTTPStatus.BAD_GATEWAY
    retryable = True


class OutboundBroken(OutboundUnavailable):
    """The other side failed several times in a row and is left alone for a while."""

    code = "outbound_broken"
    retry_after_seconds = int(BROKEN_SECONDS)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; ``is_cut`` when the body was longer than what is read."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_cut: bool = False

    @property
    def says_later(self) -> bool:
        """Whether the other side says that it cannot now."""
        return self.status in {408, 429} or self.status >= 500


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart once; what was checked is what is connected to."""

    scheme: str
    host: str
    port: int
    path: bytes
    is_allowed: bool = False

    @property
    def place(self) -> str:
        """Host and port as they stand in a URL; all that an error may tell."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == DEFAULT_PORTS[self.scheme] else f"{name}:{self.port}"


def post_json(url: str, value: Any, *, headers: Mapping[str, str] | None = None) -> Answer:
    """Send a JSON document; see ``send``."""
    sent = {"content-type": "application/json", **(headers or {})}
    return send("POST", url, body=orjson.dumps(value), headers=sent)


def send(
    method: str,
    url: str,
    *,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    is_repeatable: bool | None = None,
) -> Answer:
    """Send one request and return its answer, whatever its status, at most 64 KB of it.

    Args:
        method: As in HTTP.
        url: Where to.
        body: As it is sent.
        headers: Besides the client's own.
        is_repeatable: Whether the receiver can tell a second sending from a second message: it is
            signed with a name of its own. Without a word, only methods that are idempotent.

    Raises:
        OutboundRefused: The URL, or an address behind its name, is not one to go to.
        OutboundRedirected: The answer was a redirect.
        OutboundUntrusted: The certificate is not good for the name.
        OutboundBroken: The host failed several times in a row just now.
        OutboundUnavailable: No whole answer within 10 seconds; trying again may help.
    """
    try:
        target = target_of(url)
        again = method in REPEATABLE if is_repeatable is None else is_repeatable
        answer = _tried(
            target,
            lambda deadline: _sent(target, deadline, method, body, headers or {}),
            tries=MOST_TRIES if again else 1,
        )
    except PlatformError as error:
        metrics.HTTP_OUTBOUND.labels(_outcome_of(error)).inc()
        raise
    metrics.HTTP_OUTBOUND.labels("ok" if answer.status < 300 else "said_no").inc()
    return answer


def _tried(target: Target, sent: Callable[["_Deadline"], Answer], *, tries: int) -> Answer:
    """Try once or a few times, all within one deadline, past the host's breaker."""
    deadline = _Deadline(TOTAL_SECONDS)
    retrying = tenacity.Retrying(
        stop=tenacity.stop_any(
            tenacity.stop_after_attempt(tries), tenacity.stop_before_delay(TOTAL_SECONDS)
        ),
        wait=tenacity.wait_random_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE),
        retry=tenacity.retry_any(
            tenacity.retry_if_exception(_may_pass),
            tenacity.retry_if_result(lambda answer: answer.says_later),
        ),
        sleep=_pause,
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    answer: Answer = retrying(lambda: _past_breaker(target, lambda: sent(deadline)))
    return answer


def _may_pass(error: BaseException) -> bool:
    """Whether another try in a moment may help; a breaker that is open stays so for longer."""
    is_ours = isinstance(error, PlatformError) and error.retryable
    return is_ours and not isinstance(error, OutboundBroken)


def _pause(seconds: float) -> None:
    time.sleep(seconds)


def _outcome_of(error: PlatformError) -> str:
    if isinstance(error, OutboundBroken):
        return "broken"
    return "failed" if error.retryable else "refused"


def _sent(
    target: Target, deadline: "_Deadline", method: str, body: bytes, headers: Mapping[str, str]
) -> Answer:
    """Make one exchange."""
    backend = _Backend(target, deadline, proxy=str(settings.OUTBOUND_PROXY))
    try:
        with httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            network_backend=backend,
            http2=False,
            retries=0,
        ) as pool:
            answer = _exchange(pool, method, target, body, headers)
    except httpcore.ConnectError as error:
        raise _connect_error(target, error) from error
    except httpcore.TimeoutException as error:
        raise OutboundUnavailable(
            f"{target.place} gave no whole answer within {TOTAL_SECONDS:.0f} seconds."
        ) from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise OutboundUnavailable(
            f"{target.place} broke the connection off or did not speak HTTP."
        ) from error
    if 300 <= answer.status < 400:
        raise OutboundRedirected(
            f"{target.place} answers with a redirect, which is not followed. Set the address it "
            "leads to instead."
        )
    return answer


# -- breakers ----------------------------------------------------------------------------------


class _Shown(pybreaker.CircuitBreakerListener):
    """Shows each change of a breaker as a number."""

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        metrics.BREAKER_STATE.labels(cb.name).set(_STATES[new_state.name])


class _Later(Exception):
    """Carries an answer that counts as a failure of its host past the breaker."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


_STATES = {pybreaker.STATE_CLOSED: 0, pybreaker.STATE_HALF_OPEN: 1, pybreaker.STATE_OPEN: 2}
_breakers: OrderedDict[str, pybreaker.CircuitBreaker] = OrderedDict()
_breakers_lock = threading.Lock()


def _breaker_of(place: str) -> pybreaker.CircuitBreaker:
    """Return this process' breaker of a host; the one unused longest leaves when there are many."""
    with _breakers_lock:
        known = _breakers.pop(place, None)
        if known is None:
            known = pybreaker.CircuitBreaker(
                fail_max=BREAKS_AFTER,
                reset_timeout=BROKEN_SECONDS,
                exclude=[lambda error: not _is_failure(error)],
                listeners=[_Shown()],
                name=place,
                throw_new_error_on_trip=False,
            )
            metrics.BREAKER_STATE.labels(place).set(0)
        _breakers[place] = known
        if len(_breakers) > MOST_BREAKERS:
            gone, _ = _breakers.popitem(last=False)
            metrics.BREAKER_STATE.remove(gone)
    return known


def forget_breakers() -> None:
    """Begin anew with every host."""
    with _breakers_lock:
        for place in _breakers:
            metrics.BREAKER_STATE.remove(place)
        _breakers.clear()


def _is_failure(error: BaseException) -> bool:
    """Whether the host is to blame, not the address we were given or the certificate it shows."""
    return isinstance(error, _Later | OutboundUnavailable)


def _past_breaker(target: Target, sent: Callable[[], Answer]) -> Answer:
    try:
        # Not `call`, which holds the breaker's lock, and with it other threads, for the exchange.
        with _breaker_of(target.place).calling():
            return _or_later(sent())
    except _Later as later:
        return later.answer
    except pybreaker.CircuitBreakerError as error:
        raise OutboundBroken(
            f"{target.place} failed {BREAKS_AFTER} times in a row and is left alone for "
            f"{BROKEN_SECONDS:.0f} seconds."
        ) from error


def _or_later(answer: Answer) -> Answer:
    if answer.says_later:
        raise _Later(answer)
    return answer


def require_success(answer: Answer, what: str) -> None:
    """Refuse an answer that is not 2xx.

    Raises:
        OutboundUnavailable: It says that it cannot now (408, 429, 5xx).
        OutboundRejected: It says no.
    """
    if 200 <= answer.status < 300:
        return
    if answer.says_later:
        raise OutboundUnavailable(f"{what} answered {answer.status}; it is tried again later.")
    raise OutboundRejected(
        f"{what} answered {answer.status}. Check its address and what it expects."
    )


def target_of(url: str) -> Target:
    """Take a URL apart; the only reader of URLs here, so that nobody reads it differently.

    Raises:
        OutboundRefused: Its form, scheme or port is not one to go to.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise OutboundRefused(
            "The address is no URL. Write it like https://example.org/path."
        ) from error
    scheme, host = parsed.scheme, parsed.raw_host.decode("ascii").rstrip(".").lower()
    if scheme not in DEFAULT_PORTS or not _HOST.fullmatch(host):
        raise OutboundRefused("The address begins with https:// and a host.")
    if parsed.userinfo:
        raise OutboundRefused("The address holds a user name or password; take it out.")
    port = parsed.port or DEFAULT_PORTS[scheme]
    target = Target(scheme, host, port, parsed.raw_path, _is_allowed(host, port))
    if not target.is_allowed:
        _check_public(target)
    return target


def _check_public(target: Target) -> None:
    if target.scheme != "https":
        raise OutboundRefused(
            f"{target.place} is to be reached without encryption. Use https, or have the operator "
            "add the host to MLP_OUTBOUND_ALLOW."
        )
    if target.port not in settings.OUTBOUND_PORTS:
        ports = ", ".join(str(one) for one in sorted(settings.OUTBOUND_PORTS))
        raise OutboundRefused(
            f"Port {target.port} of {target.host} is not one to go to (allowed: {ports}). The "
            "operator may add it to MLP_OUTBOUND_PORTS."
        )


def _is_allowed(host: str, port: int) -> bool:
    """Whether the operator has named this host, with this port or with none."""
    name = f"[{host}]" if ":" in host else host
    allowed = {one.lower() for one in settings.OUTBOUND_ALLOW}
    return name in allowed or f"{name}:{port}" in allowed


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet, and of nothing that only looks like it."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if parsed.version == 6 and parsed not in _UNICAST6:
        return False
    return not any(parsed.version == net.version and parsed in net for net in _FORBIDDEN)


def _exchange(
    pool: httpcore.ConnectionPool,
    method: str,
    target: Target,
    body: bytes,
    headers: Mapping[str, str],
) -> Answer:
    url = httpcore.URL(
        scheme=target.scheme.encode(),
        host=target.host.encode("ascii"),
        port=target.port,
        target=target.path,
    )
    sent = {
        "host": target.place,
        "user-agent": AGENT,
        "accept-encoding": "identity",  # a small body that unpacks to a large one stays small
        "connection": "close",
        "content-length": str(len(body)),
    } | {name.lower(): value for name, value in headers.items()}
    with pool.stream(method, url, headers=list(sent.items()), content=body) as reply:
        kept, is_cut = _bounded(reply.iter_stream())
        got = {name.decode("latin-1").lower(): one.decode("latin-1") for name, one in reply.headers}
        return Answer(reply.status, got, kept, is_cut)


def _bounded(parts: Iterable[bytes]) -> tuple[bytes, bool]:
    kept = bytearray()
    for part in parts:
        kept += part
        if len(kept) > MOST_READ_BYTES:
            return bytes(kept[:MOST_READ_BYTES]), True
    return bytes(kept), False


def _connect_error(target: Target, error: Exception) -> PlatformError:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return OutboundUntrusted(
            f"The certificate of {target.place} is not good for this name: "
            f"{cause.verify_message or 'it cannot be verified'}"
        )
    return OutboundUnavailable(f"{target.place} cannot be reached.")


# -- the way there -----------------------------------------------------------------------------


class _Deadline:
    """The end of one exchange: look-up, connection, request and answer share it."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    def left(self, kind: type[httpcore.TimeoutException]) -> float:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise kind("the time for this exchange is over")
        return left


@dataclass(slots=True)
class _Backend(httpcore.NetworkBackend):
    """Connects to an address that was looked up once and judged; nothing looks it up again."""

    target: Target
    deadline: _Deadline
    proxy: str = ""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = _judged(self.target, _look_up(host, port, self.deadline))
        if self.proxy:
            return self._through_proxy(addresses[0], port)
        return self._first_that_answers(addresses, port)

    def _first_that_answers(self, addresses: list[str], port: int) -> "_Stream":
        failure: Exception | None = None
        tried = addresses[:MOST_ADDRESSES]
        for at, address in enumerate(tried):
            try:  # one that swallows everything leaves the others their share of the time
                return _connected(address, port, self.deadline, among=len(tried) - at)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError("no address")

    def _through_proxy(self, address: str, port: int) -> "_Stream":
        """Have the operator's proxy connect to the judged address; TLS goes on inside."""
        proxy = httpx.URL(self.proxy)
        stream = _connected(proxy.host, proxy.port or DEFAULT_PORTS["http"], self.deadline)
        name = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        lines = [f"CONNECT {name} HTTP/1.1", f"Host: {name}"]
        if proxy.userinfo:
            pair = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
            lines.append(f"Proxy-Authorization: Basic {pair}")
        stream.write("\r\n".join([*lines, "", ""]).encode())
        head = b""
        while b"\r\n\r\n" not in head and len(head) < 8192:
            part = stream.read(1)  # not a byte of what follows the head may be taken
            if not part:
                break
            head += part
        status = head.split(b" ", 2)[1:2]
        if status != [b"200"]:
            stream.close()
            raise httpcore.ConnectError("the proxy did not connect")
        return stream


def _connected(host: str, port: int, deadline: _Deadline, *, among: int = 1) -> "_Stream":
    left = deadline.left(httpcore.ConnectTimeout) / among
    return _Stream(httpcore.SyncBackend().connect_tcp(host, port, timeout=left), deadline)


@dataclass(slots=True)
class _Stream(httpcore.NetworkStream):
    """A connection whose every wait ends with the exchange: a slow drip gains nothing."""

    inner: httpcore.NetworkStream
    deadline: _Deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self.inner.read(max_bytes, self.deadline.left(httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for at in range(0, len(buffer), MOST_READ_BYTES):
            part = buffer[at : at + MOST_READ_BYTES]
            self.inner.write(part, self.deadline.left(httpcore.WriteTimeout))

    def close(self) -> None:
        self.inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> "_Stream":
        left = self.deadline.left(httpcore.ConnectTimeout)
        return _Stream(self.inner.start_tls(ssl_context, server_hostname, left), self.deadline)

    def get_extra_info(self, info: str) -> Any:
        return self.inner.get_extra_info(info)


@dataclass(slots=True)
class _LookUp:
    found: list[str] = field(default_factory=list)
    error: OSError | None = None


def _look_up(host: str, port: int, deadline: _Deadline) -> list[str]:
    """Ask the resolver once; it has no deadline of its own, so a thread waits for it."""
    answer = _LookUp()

    def ask() -> None:
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answer.found = list(dict.fromkeys(str(row[4][0]) for row in rows))
        except (OSError, UnicodeError) as error:
            answer.error = error if isinstance(error, OSError) else OSError(str(error))

    asking = threading.Thread(target=ask, name="look-up", daemon=True)
    asking.start()
    asking.join(deadline.left(httpcore.ConnectTimeout))
    if asking.is_alive():
        raise httpcore.ConnectTimeout("the resolver does not answer")
    if answer.error is not None or not answer.found:
        raise OutboundUnavailable(f"No address was found for {host}. Check its spelling.")
    return answer.found


def _judged(target: Target, addresses: list[str]) -> list[str]:
    """Refuse a name with any address that is not public: a mixed one is no accident."""
    if not target.is_allowed and not all(is_public(one) for one in addresses):
        raise OutboundRefused(
            f"{target.host} has an address inside a private network. The operator may allow the "
            "host by MLP_OUTBOUND_ALLOW."
        )
    return addresses
