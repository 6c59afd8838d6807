"""The licence that a page names for its content."""

import re
from collections.abc import Sequence

from pairmill.schema.outcomes import DropReason
from pairmill.workers.extract.urls import MAX_LENGTH, Base

_CREATIVE_COMMONS = re.compile(
    r"(?:https?:)?//(?:www\.)?creativecommons\.org/(?:licenses|publicdomain)/[^/?#]", re.I | re.A
)


def find_license(urls: Sequence[str], base: Base) -> str | None:
    """The Creative Commons licence that a page links to, or None.

    It is the first of the page's links, before or after the image, that as written (white
    space around it aside) leads with or without a scheme to ``creativecommons.org`` (or
    ``www.``) and there below ``/licenses/`` or ``/publicdomain/``. It is given resolved, as
    the image's URL is. Relative links do not count: they are Creative Commons' own pages,
    which list licences. What marks a link (``rel=license``) is not asked.
    """
    if "creativecommons.org/" not in "\n".join(urls).lower():  # a tenth of the loop's time
        return None
    for url in urls:
        if _CREATIVE_COMMONS.match(url.lstrip()):
            license_url = base.resolve(url)
            if not isinstance(license_url, DropReason) and len(license_url) <= MAX_LENGTH:
                return license_url
    return None
