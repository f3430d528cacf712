"""Only addresses of the public internet are public, in whatever form they carry another address."""

import socket

import pytest

from mistral_api.security.public_addresses import is_public


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9",
        "192.88.99.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::ffff:127.0.0.1", "::ffff:1.1.1.1", "::ffff:0:127.0.0.1", "::127.0.0.1", "::1.1.1.1",
        "64:ff9b::7f00:1", "64:ff9b::101:101", "64:ff9b:1::1", "2002:7f00:1::", "2002:101:101::1", "2001::1",
        "2001:db8::1", "fc00::1", "fd00::1", "fe80::1", "fe80::1%lo", "fec0::1", "ff02::1", "100::1", "5f00::1",
        "4000::1", "localhost", "",
    ],
)  # fmt: skip
def test_all_other_addresses_are_not(address: str) -> None:
    assert not is_public(address)


def test_an_address_of_this_machine_is_not_public(monkeypatch: pytest.MonkeyPatch) -> None:
    class Card:
        address = "1.1.1.1"
        family = socket.AF_INET

    monkeypatch.setattr("mistral_api.security.public_addresses.psutil.net_if_addrs", lambda: {"eth0": [Card]})
    assert not is_public("1.1.1.1")
    assert is_public("1.0.0.1")
