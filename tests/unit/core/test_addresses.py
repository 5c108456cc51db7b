"""Where a call comes from."""

import pytest

from apps.core.addresses import client_address, is_part_of, is_within, normal_network

CHAIN = "203.0.113.9, 198.51.100.7, 192.0.2.1"


def test_without_a_proxy_of_ours_the_header_is_a_strangers_word() -> None:
    assert client_address("192.0.2.5", "203.0.113.9", proxies=0) == "192.0.2.5"


@pytest.mark.parametrize(
    ("proxies", "client"), [(1, "192.0.2.1"), (2, "198.51.100.7"), (3, "203.0.113.9"), (4, None)]
)
def test_each_proxy_of_ours_makes_one_entry_from_the_right_count(
    proxies: int, client: str | None
) -> None:
    assert client_address("10.0.0.1", CHAIN, proxies=proxies) == client


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("192.0.2.1:4711", "192.0.2.1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("nonsense", None),
        ("", None),
        (None, None),
    ],
)
def test_an_address_is_read_as_proxies_write_it_or_not_at_all(
    written: str | None, read: str | None
) -> None:
    assert client_address("10.0.0.1", written, proxies=1) == read


def test_an_address_is_within_its_networks_only() -> None:
    networks = ("192.0.2.0/24", "2001:db8::/32", "198.51.100.7", "nonsense")
    assert is_within("192.0.2.77", networks)
    assert is_within("::ffff:192.0.2.77", networks)
    assert is_within("2001:db8:1::9", networks)
    assert is_within("198.51.100.7", networks)
    assert not is_within("198.51.100.8", networks)
    assert not is_within(None, networks)
    assert not is_within("192.0.2.77", ())


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        (" 192.0.2.0/24 ", "192.0.2.0/24"),
        ("192.0.2.7", "192.0.2.7/32"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("192.0.2.7/24", None),
        ("192.0.2.0/33", None),
        ("here", None),
        ("", None),
    ],
)
def test_a_network_has_one_normal_form(text: str, normal: str | None) -> None:
    assert normal_network(text) == normal


@pytest.mark.parametrize(
    ("part", "whole", "is_part"),
    [
        ("192.0.2.0/25", "192.0.2.0/24", True),
        ("192.0.2.0/24", "192.0.2.0/24", True),
        ("192.0.0.0/16", "192.0.2.0/24", False),
        ("192.0.2.0/24", "2001:db8::/32", False),
        ("2001:db8:1::/48", "2001:db8::/32", True),
        ("0.0.0.0/0", "192.0.2.0/24", False),
    ],
)
def test_a_network_is_part_of_another_with_all_its_addresses(
    part: str, whole: str, is_part: bool
) -> None:
    assert is_part_of(part, [whole]) is is_part
