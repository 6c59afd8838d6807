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
from pairmill.workers.download.fetch import FetchFailed
from pairmill.workers.download.resolver import CachedResolver, Resolver
from pairmill.workers.errors import Refused

Address = IPv4Address | IPv6Address
# global by IANA's registry, and yet doors to any IPv4 address behind a translator or relay
TRANSLATED = tuple(
    ip_network(n)
    for n in ("::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
)


@dataclass(frozen=True)
class Network:
    """The rule. allow: networks that may be connected to although they are not public; with
    one, any port may be. connect_to: (host, port) of every connection, whatever the URL says,
    as curl's --connect-to; checked like any other."""

    allow: tuple[IPv4Network | IPv6Network, ...] = ()
    connect_to: tuple[str, int] | None = None
    resolver: Resolver = field(default_factory=CachedResolver)

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ, *, resolver: Resolver | None = None
    ) -> "Network":
        """PAIRMILL_ALLOW_NETWORKS=127.0.0.0/8,…  and PAIRMILL_CONNECT_TO=host:port."""
        names = environment.get("PAIRMILL_ALLOW_NETWORKS", "")
        try:
            allow = tuple(ip_network(n.strip()) for n in names.split(",") if n.strip())
        except ValueError as error:
            raise Refused(f"PAIRMILL_ALLOW_NETWORKS is wrong: {error}") from None
        target = environment.get("PAIRMILL_CONNECT_TO", "")
        resolver = resolver or CachedResolver()
        if not target:
            return cls(allow, None, resolver)
        host, colon, port = target.rpartition(":")
        if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise Refused(f"PAIRMILL_CONNECT_TO must be host:port, and is {target!r}")
        return cls(allow, (host.strip("[]"), int(port)), resolver)

    def allows(self, address: Address) -> bool:
        if any(address in network for network in self.allow):
            return True
        if address.is_multicast or any(address in network for network in TRANSLATED):
            return False
        return address.is_global

    async def addresses(self, host: str, port: int) -> list[tuple[str, int]]:
        """Where to connect for this host and port: checked addresses, at least one.

        Raises FetchFailed: DNS_FAILED, PORT_REFUSED, or ADDRESS_REFUSED if any answer of the name
        is not allowed; a name with a public and a private address is no accident.
        """
        if self.connect_to:
            host, port = self.connect_to
        elif port not in (80, 443) and not self.allow:
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
