"""The closed lists of names: how a link is dropped, how a download ends, how a score ends.

The database holds the same lists as tables (``mill.outcome``, ``mill.drop_reason``);
a test compares the two.
"""

from enum import IntEnum, StrEnum


class DropReason(StrEnum):
    """Why an extracted link became no pair. Every link has one of these or is kept."""

    NO_TEXT = "no_text"  # no alt attribute, or one that is empty once cleaned
    TEXT_TOO_SHORT = "text_too_short"  # fewer than 5 characters once cleaned
    TEXT_TOO_LONG = "text_too_long"  # more than 2,000 characters once cleaned
    NO_URL = "no_url"  # the link has no url, or an empty one
    SCHEME = "scheme"  # resolved, it is neither http nor https (data:, javascript:, file:)
    BAD_URL = "bad_url"  # it cannot be resolved or parsed, or has no host
    URL_TOO_LONG = "url_too_long"  # more than 2,048 characters
    FILE_TYPE = "file_type"  # the path's ending is refused: .svg, .gif and .ico for images
    REMOVED = "removed"  # on the removal list; decided by the database at ingest


class Outcome(IntEnum):
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
    TLS_FAILED = 22
    CONNECTION_LOST = 23  # reset or closed before the response was whole
    TIMEOUT = 24  # the URL's total deadline, or nothing was received for too long
    # the response
    BAD_RESPONSE = 30  # not HTTP, or against its rules (a bad chunk, two lengths)
    HTTP_ERROR = 31  # a final status other than 2xx; http_status says which
    TOO_MANY_REDIRECTS = 32
    REDIRECT_REFUSED = 33  # a Location that is missing, invalid, or not http(s)
    TOO_LARGE = 34  # the body is above the cap
    EMPTY = 35  # a 2xx without a body
    # the image
    NOT_AN_IMAGE = 40  # its first bytes are no known image's (HTML, SVG, text)
    UNSUPPORTED_IMAGE = 41  # an image, but of a format that is not decoded
    TRUNCATED_IMAGE = 42
    BROKEN_IMAGE = 43
    TOO_MANY_PIXELS = 44
    TOO_THIN = 45  # the aspect ratio is above the cap
    # ourselves
    INTERNAL_ERROR = 90  # a fault of the worker's; counted, so that it is seen


class ScoreOutcome(IntEnum):
    """How the scoring of one downloaded pair ended."""

    SCORED = 0
    BROKEN_THUMBNAIL = 1
    NOT_FINITE = 2  # the model gave NaN or an infinity
