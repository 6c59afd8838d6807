"""The backend that the environment and the command line configure."""

import os
import sys
from collections.abc import Mapping
from functools import partial

from pairmill.workers.download.client import Client, tls_context
from pairmill.workers.download.network import Network
from pairmill.workers.download.resolver import CachedResolver
from pairmill.workers.errors import Refused

Environment = Mapping[str, str]


def contact(environment: Environment, network: Network) -> str:
    """Who answers for this crawler: PAIRMILL_CONTACT. Raises Refused where the public web would be
    asked without."""
    found = " ".join(environment.get("PAIRMILL_CONTACT", "").split())
    if not found and not network.connect_to:
        raise Refused(
            "PAIRMILL_CONTACT is not set: a URL or address of who answers for this crawler,"
            " sent to every web site in the User-Agent"
        )
    if not found.isascii():
        raise Refused(f"PAIRMILL_CONTACT must be ASCII, as a header's value is: {found!r}")
    return found


def backend(*, verify_tls: bool = True, environment: Environment = os.environ) -> Client:
    """The backend that PAIRMILL_BACKEND names: client (ours, the default) or asks.

    Raises Refused where the environment is wrong.
    """
    resolver = CachedResolver(warn=partial(print, file=sys.stderr))
    network = Network.from_environment(environment, resolver=resolver)
    kind: type[Client] = Client
    name = environment.get("PAIRMILL_BACKEND", "client")
    if name == "asks":
        try:
            from pairmill.workers.download.asks_backend import AsksBackend as kind
        except ModuleNotFoundError as error:
            raise Refused(f"{error.name} is not installed here: see `make asks-env`") from None
    elif name != "client":
        raise Refused(f"PAIRMILL_BACKEND is client or asks, not {name!r}")
    return kind(network, contact=contact(environment, network), tls=tls_context(verify=verify_tls))
