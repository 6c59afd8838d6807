"""The closed lists: reasons why a link is dropped, outcomes of downloads and of scoring.

The database holds the same lists as tables (``mill.outcome``, ``mill.drop_reason``);
a test compares the two.
"""

from enum import IntEnum, StrEnum
from typing import Literal, get_args

# of mill.wat_file.language_detector, the default first
LanguageDetectorName = Literal["cld3", "fasttext"]
LANGUAGE_DETECTORS: tuple[str, ...] = get_args(LanguageDetectorName)


class DropReason(StrEnum):
    """Why an extracted link became no pair. Every link has one of these or is kept."""

    __hash__ = str.__hash__  # an enumeration's own is Python: half of the time of a count

    NO_TEXT = "no_text"  # no alt attribute, or one that is empty once cleaned
    TEXT_TOO_SHORT = "text_too_short"  # weighs less than 5 Latin characters once cleaned
    TEXT_TOO_LONG = "text_too_long"  # more than 2,000 characters once cleaned
    NO_URL = "no_url"  # the link has no url, or an empty one
    SCHEME = "scheme"  # resolved, it is neither http nor https (data:, javascript:, file:)
    BAD_URL = "bad_url"  # it cannot be resolved or parsed, or has no host
    URL_TOO_LONG = "url_too_long"  # more than 2,048 characters
    FILE_TYPE = "file_type"  # the path's ending is refused: .svg, .gif and .ico for images
    REMOVED = "removed"  # on the removal list; decided by the database at ingest


class _Named(IntEnum):
    @property
    def row(self) -> dict[str, int | str]:
        """The row of its table: code and name."""
        return {"code": self.value, "name": self.name.lower()}


class Outcome(_Named):
    """How the download of one URL ended. Exactly one for each URL; 0 is success."""

    SUCCESS = 0
    # before a connection
    INVALID_URL = 10
    DNS_FAILED = 11
    ADDRESS_REFUSED = 12  # a private, loopback, link-local or other non-global address
    PORT_REFUSED = 13
    # the connection
    CONNECT_FAILED = 20
    CONNECT_TIMEOUT = 21
    TLS_FAILED = 22  # no handshake; the certificate's faults have a name of their own
    CONNECTION_LOST = 23  # reset or closed before the response was whole
    TIMEOUT = 24  # the URL's total deadline, or nothing was received for too long
    HOST_GIVEN_UP = 25  # not tried: one after another, fetches from this host had failed
    CERTIFICATE_REFUSED = 26  # expired, self-signed, of another host, or signed by nobody we know
    # the response
    BAD_RESPONSE = 30  # not HTTP, or against its rules (a bad chunk, two lengths)
    HTTP_ERROR = 31  # a final status of 4xx, or an odd one; http_status says which
    TOO_MANY_REDIRECTS = 32
    REDIRECT_REFUSED = 33  # a Location that is missing, invalid, or not http(s)
    TOO_LARGE = 34  # the body is above the cap
    EMPTY = 35  # a 2xx without a body
    SERVER_ERROR = 36  # a final status of 5xx
    RETRY_LATER = 37  # 429, or 503 with Retry-After; or not tried, since the host had said so
    # the image
    NOT_AN_IMAGE = 40  # its first bytes are no known image's (HTML, SVG, text)
    UNSUPPORTED_IMAGE = 41  # an image, but of a format that is not decoded
    TRUNCATED_IMAGE = 42
    BROKEN_IMAGE = 43
    TOO_MANY_PIXELS = 44
    TOO_THIN = 45  # the aspect ratio is above the cap
    TOO_SMALL = 46  # a side is below what `pairmill fetch` was asked for
    # the site's wish; mill.opt_out holds the evidence
    OPTED_OUT = 50
    OPT_OUT_UNKNOWN = 51  # robots.txt could not be had (5xx, no answer): nothing may be fetched
    # ourselves
    INTERNAL_ERROR = 90  # a fault of the worker's; counted, so that it is seen

    @property
    def retry_can_help(self) -> bool:
        """Whether the same URL may well end otherwise some hours later."""
        return self in _PASSING


_PASSING = frozenset(
    (
        Outcome.DNS_FAILED, Outcome.CONNECT_FAILED, Outcome.CONNECT_TIMEOUT, Outcome.TLS_FAILED,
        Outcome.CERTIFICATE_REFUSED, Outcome.CONNECTION_LOST, Outcome.TIMEOUT,
        Outcome.HOST_GIVEN_UP, Outcome.BAD_RESPONSE, Outcome.SERVER_ERROR,
        Outcome.RETRY_LATER, Outcome.TRUNCATED_IMAGE,
        Outcome.OPT_OUT_UNKNOWN, Outcome.INTERNAL_ERROR,
    )
)  # fmt: skip


class ScoreOutcome(_Named):
    """How the scoring of one downloaded pair ended."""

    SCORED = 0
    BROKEN_THUMBNAIL = 1
    NOT_FINITE = 2  # the model gave NaN or an infinity
    WRONG_THUMBNAIL = 3  # it shows something else than the image whose hash came with it
