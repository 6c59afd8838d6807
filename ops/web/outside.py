"""Fetching an image from outside on a visitor's behalf: through the downloader's guard alone.

A URL that a page fetches is a way into the network that it stands in (server-side request forgery),
so the address of each hop is checked after its name was resolved, and the checked one is connected
to: ``workers.download.network``.
"""

import os
from functools import cache

import trio

from pairmill.ops.errors import UserError
from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.budget import MemoryBudget
from pairmill.workers.download.client import Client, tls_context
from pairmill.workers.download.environment import contact
from pairmill.workers.download.fetcher import Fetched, Fetcher, Limits
from pairmill.workers.download.network import Network
from pairmill.workers.errors import Refused

LIMIT_BYTES = 10_000_000  # as a download has them
SECONDS = 10.0
tls = cache(tls_context)  # making one costs 42 ms
SENTENCES = {
    Outcome.INVALID_URL: "is no http or https URL",
    Outcome.DNS_FAILED: "has a host that does not exist",
    Outcome.ADDRESS_REFUSED: "is not at a public address, and nothing else is fetched",
    Outcome.PORT_REFUSED: "names a port that is none of the web's",
    Outcome.TOO_MANY_REDIRECTS: "redirects too often",
    Outcome.REDIRECT_REFUSED: "redirects to what is no http or https URL",
    Outcome.TOO_LARGE: "has more bytes than are read",
    Outcome.EMPTY: "has no bytes",
    Outcome.OPTED_OUT: "says that it is not to be used",
    Outcome.RETRY_LATER: "is at a server that asks to be left alone for now",
    Outcome.TIMEOUT: "did not come in time",
    Outcome.CONNECT_TIMEOUT: "did not come in time",
}


def check_outside() -> None:
    """Raises UserError where the environment does not allow any fetch; for a page's start."""
    _client(Limits())


def fetch_image(url: str, *, limit_bytes: int = LIMIT_BYTES, seconds: float = SECONDS) -> bytes:
    """The body at a URL, by GET, after at most five redirects; that it is an image is for
    ``uploads.Decoder`` to say. limit_bytes: that it may have, on the wire and decoded. seconds:
    for all of it. No cookie, no referrer and nothing of the visitor is sent; headers that refuse
    the use of an image are heeded.

    Blocks, for a thread of its own. Raises UserError, whose sentence is for the visitor.
    """
    limits = Limits(min(seconds, 5.0), min(seconds, 5.0), seconds, limit_bytes)
    client = _client(limits)

    async def main() -> Fetched:
        budget = MemoryBudget(limit_bytes)
        async with client:
            with budget.room() as room:
                return await Fetcher(client, limits).fetch(url, room)

    fetched = trio.run(main)
    if fetched.outcome is not Outcome.SUCCESS or fetched.body is None:
        said = SENTENCES.get(fetched.outcome, "could not be fetched")
        answered = f" (HTTP {fetched.http_status})" if fetched.http_status else ""
        raise UserError(f"the image's URL {said}{answered}")
    return fetched.body


def _client(limits: Limits) -> Client:
    """One for each fetch: its names, connections and time-outs belong to one event loop."""
    try:
        network = Network.from_environment()
        who = contact(os.environ, network)
        return Client(network, contact=who, limits=limits, tls=tls())
    except Refused as refused:
        raise UserError(str(refused)) from None
