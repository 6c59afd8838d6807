"""Where the downloader may connect: public addresses, unless the environment says otherwise.

A URL, a redirect or a name server may point anywhere, also into the network that the
worker runs in. So the address is checked after resolution, and the checked address is the
one that is connected to.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.fetcher import FetchFailed
from pairmill.workers.download.resolver import CachedResolver, Resolver
from pairmill.workers.errors import Refused

Address = IPv4Address | IPv6Address
# What is no public host, whatever Python's is_global says of it, which differs between patch
# releases: IANA's registries of special-purpose addresses (RFC 6890; as of 2025), translators and
# relays to any IPv4 address, and the metadata services of clouds.
NEVER = tuple(
    ip_network(n)
    for n in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4", "168.63.129.16/32",
        "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64",
        "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7",
        "fe80::/10", "fec0::/10",
    )
)  # fmt: skip
GLOBAL_UNICAST = ip_network("2000::/3")  # all that IANA has given out of IPv6


@dataclass(frozen=True)
class Network:
    """The rule. allow: networks that may be connected to although they are not public; with
    one, any port may be. ports: beside them, those of public hosts. connect_to: (host, port) of
    every connection, whatever the URL says, as curl's --connect-to; checked like any other.
    proxy: (host, port) of an HTTP proxy, which is asked to connect to the checked address; the
    usual variables (http_proxy …) are ignored, since a proxy stands inside somebody's network."""

    allow: tuple[IPv4Network | IPv6Network, ...] = ()
    connect_to: tuple[str, int] | None = None
    resolver: Resolver = field(default_factory=CachedResolver)
    ports: tuple[int, ...] = (80, 443)
    proxy: tuple[str, int] | None = None

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ, *, resolver: Resolver | None = None
    ) -> "Network":
        """PAIRMILL_ALLOW_NETWORKS=127.0.0.0/8,… PAIRMILL_ALLOW_PORTS=8080,…
        PAIRMILL_CONNECT_TO=host:port PAIRMILL_PROXY=host:port."""
        networks, ports = (
            [n.strip() for n in environment.get(name, "").split(",") if n.strip()]
            for name in ("PAIRMILL_ALLOW_NETWORKS", "PAIRMILL_ALLOW_PORTS")
        )
        try:
            allow = tuple(map(ip_network, networks))
        except ValueError as error:
            raise Refused(f"PAIRMILL_ALLOW_NETWORKS is wrong: {error}") from None
        if not all(p.isdecimal() and 0 < int(p) < 65536 for p in ports):
            raise Refused(f"PAIRMILL_ALLOW_PORTS must be numbers, and is {','.join(ports)}")
        return cls(
            allow,
            _host_and_port(environment, "PAIRMILL_CONNECT_TO"),
            resolver or CachedResolver(),
            (80, 443, *map(int, ports)),
            _host_and_port(environment, "PAIRMILL_PROXY"),
        )

    def allows(self, address: Address) -> bool:
        if any(address in network for network in self.allow):
            return True
        if address.is_multicast or any(address in network for network in NEVER):
            return False
        if address.version == 6 and address not in GLOBAL_UNICAST:
            return False
        return address.is_global

    async def addresses(self, host: str, port: int) -> list[tuple[str, int]]:
        """Where to connect for this host and port: checked addresses, at least one.

        Raises FetchFailed: DNS_FAILED, PORT_REFUSED, or ADDRESS_REFUSED if any answer of the name
        is not allowed; a name with a public and a private address is no accident.
        """
        if self.connect_to:
            host, port = self.connect_to
        elif not port or (port not in self.ports and not self.allow):
            raise FetchFailed(Outcome.PORT_REFUSED)
        try:
            answers = await self.resolver(host, port)
        except (OSError, UnicodeError):  # UnicodeError: a label of more than 63 characters
            raise FetchFailed(Outcome.DNS_FAILED) from None
        if not answers:
            raise FetchFailed(Outcome.DNS_FAILED)
        if not all(self.allows(ip_address(a.partition("%")[0])) for a in answers):
            raise FetchFailed(Outcome.ADDRESS_REFUSED)
        return [(answer, port) for answer in answers]


def _host_and_port(environment: Mapping[str, str], name: str) -> tuple[str, int] | None:
    value = environment.get(name, "")
    if not value:
        return None
    host, colon, port = value.removeprefix("http://").rstrip("/").rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise Refused(f"{name} must be host:port, and is {value!r}")
    return host.strip("[]"), int(port)
