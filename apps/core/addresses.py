"""Where a call comes from; plain Python.

Behind proxies the connection comes from the last of them, and each proxy appends to
``X-Forwarded-For`` whom it got the call from. Anybody may begin that header with a lie, so only as
many entries count, from the right, as the operator has proxies.
"""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# ::ffff:0:0/96 holds the IPv4 addresses that came over an IPv6 socket.
MAPPED_BITS = 96


def client_address(remote: str | None, forwarded: str | None, *, proxies: int) -> str | None:
    """Return the address of the client, or None when it cannot be known.

    Args:
        remote: The other end of the connection.
        forwarded: The header ``X-Forwarded-For``, all of its lines joined by commas.
        proxies: How many proxies of our own stand in front.
    """
    if proxies == 0:
        return _plain(remote)
    hops = [one.strip() for one in (forwarded or "").split(",")]
    return _plain(hops[-proxies]) if len(hops) >= proxies else None


def is_within(address: str | None, networks: Sequence[str]) -> bool:
    """Whether an address lies in one of some networks; an unknown one lies in none."""
    found = _address(address or "")
    if found is None:
        return False
    return any(
        net is not None and net.version == found.version and found in net
        for net in map(network, networks)
    )


@lru_cache(maxsize=4096)
def network(text: str) -> Network | None:
    """Read a network as 192.0.2.0/24 or an address; None when it is neither."""
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError:
        return None


def normal_network(text: str) -> str | None:
    """Write a network in its one normal form; None when it is none.

    An IPv4 address in IPv6 clothes is undressed, as it is when a call comes from it.
    """
    found = network(text)
    if isinstance(found, ipaddress.IPv6Network) and found.prefixlen >= MAPPED_BITS:
        mapped = found.network_address.ipv4_mapped
        if mapped is not None:
            found = ipaddress.IPv4Network((mapped, found.prefixlen - MAPPED_BITS))
    return str(found) if found else None


def is_part_of(text: str, networks: Sequence[str]) -> bool:
    """Whether every address of a network lies in one of some others."""
    part = network(text)
    if part is None:
        return False
    first, last = str(part[0]), str(part[-1])
    return any(is_within(first, [one]) and is_within(last, [one]) for one in networks)


def _plain(text: str | None) -> str | None:
    found = _address(text or "")
    return str(found) if found else None


@lru_cache(maxsize=4096)
def _address(text: str) -> Address | None:
    # Some proxies write a port, or an IPv6 address in brackets with one.
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
