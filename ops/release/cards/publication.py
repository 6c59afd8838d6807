"""Who publishes a release, when and where: inputs, since no bytes may depend on the clock."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date
from typing import Any
from urllib.parse import urlsplit

from pairmill.ops.errors import UserError


@dataclass(frozen=True)
class Publication:
    """date_published: as 2026-11-27. creator: a name, with its page in creator_url. url: of the
    data set's own page. cite_as: a citation, best in BibTeX. Empty: not said."""

    date_published: str = ""
    creator: str = ""
    creator_url: str = ""
    url: str = ""
    cite_as: str = ""

    def __post_init__(self) -> None:
        """Raises UserError for a date that is none, or an address that is none."""
        if self.date_published:
            try:
                same = date.fromisoformat(self.date_published).isoformat() == self.date_published
            except ValueError:
                same = False
            if not same:
                raise UserError(
                    f"date_published is {self.date_published!r:.40}: write it as 2026-11-27"
                )
        for name in ("url", "creator_url"):
            if (address := getattr(self, name)) and not _is_address(address):
                raise UserError(f"{name} is {address!r:.80}: write it as https://host/page")

    def as_dict(self) -> dict[str, str]:
        """What is said, by key; for ``Manifest.published``."""
        return {key: value for key, value in asdict(self).items() if value}

    def missing(self) -> list[str]:
        """What Croissant requires of a data set and is not said."""
        return [key for key in ("date_published", "creator", "url") if not getattr(self, key)]


def publication(manifest: Mapping[str, Any], **others: str) -> Publication:
    """What is said of a release: by ``others`` where they are not empty, or else by its manifest,
    or else by its recipe."""
    said = [others, manifest.get("published") or {}, manifest["recipe"]]
    values = {
        field.name: next((str(each[field.name]) for each in said if each.get(field.name)), "")
        for field in fields(Publication)
    }
    return Publication(**values)


def version(manifest: Mapping[str, Any]) -> str:
    """The version of a release's data, MAJOR.MINOR.PATCH."""
    return manifest.get("version") or f"{manifest['recipe']['version']}.0.0"


def _is_address(address: str) -> bool:
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    plain = not any(sign.isspace() or not sign.isprintable() for sign in address)
    return plain and parts.scheme in ("http", "https") and bool(parts.netloc)
