"""Addresses that are no public host's, by IANA's registries, whatever Python's patch release says."""

from ipaddress import ip_address, ip_network

import pytest

from pairmill.workers.download.network import Network

# iana-ipv4-special-registry and iana-ipv6-special-registry, all that is not globally reachable, with
# the relays and translators beside them
SPECIAL = """
0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.0.8/32
192.0.0.170/31 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24
203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 255.255.255.255/32 ::1/128 ::/128 ::/96 ::ffff:0:0/96
64:ff9b::/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001::/32 2001:2::/48 2001:10::/28
2001:20::/28 2001:db8::/32 2002::/16 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8
4000::/3 8000::/1
""".split()  # noqa: SIM905


@pytest.mark.parametrize("network", SPECIAL)
def test_special_purpose_addresses_are_refused(network: str) -> None:
    """3fff::/20 (RFC 9637) and others are global to some of Python's patch releases."""
    every = ip_network(network)
    middle = every[every.num_addresses // 2]
    assert [Network().allows(a) for a in (every[0], middle, every[-1])] == [False] * 3


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255",
     "172.32.0.0", "192.0.1.0", "192.0.3.0", "198.17.255.255", "198.20.0.0", "203.0.114.0",
     "223.255.255.255", "2001:200::", "2001:db7:ffff::", "2001:db9::", "2003::", "2606:2800::1",
     "3ffe::1", "3fff:1000::"],
)  # fmt: skip
def test_their_neighbours_are_not(address: str) -> None:
    assert Network().allows(ip_address(address))
