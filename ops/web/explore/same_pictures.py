"""Rows that have the picture of another, by degrees: the same file, the same picture, similar."""

from dataclasses import asdict, dataclass
from typing import Any

import psycopg
from psycopg_pool import PoolTimeout

from pairmill.ops.errors import UserError
from pairmill.ops.web.explore.evidence import evidence
from pairmill.ops.web.explore.explore_settings import ExploreSettings
from pairmill.ops.web.explore.release_rows import OpenRelease, Row

SHOWN = 24
NEAREST = 48  # samples whose dHash is compared
SAME_DHASH = 4  # bits of 64
SAME_COSINE = 0.94  # by which clip-retrieval takes two pictures for one


@dataclass(frozen=True)
class SamePictures:
    """SAMPLE_IDs of the same release. file: of the same bytes. picture: (SAMPLE_ID, bits of dHash
    that differ). similar: (SAMPLE_ID, cosine), from SAME_COSINE on. unknown: why a degree could not
    be told, sentences."""

    file: list[int]
    picture: list[tuple[int, int]]
    similar: list[tuple[int, float]]
    unknown: list[str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def same_pictures(
    settings: ExploreSettings, release: OpenRelease, sample_id: int, row: Row
) -> SamePictures:
    """The rows of a release that have the picture of this one."""
    unknown: list[str] = []
    shape = release.shape
    digests = {
        role: row[shape.by_role[role]] or "" for role in ("md5", "sha256") if shape.get(role)
    }
    if not any(digests.values()):
        unknown.append("the release has no digest of this image's file")
    files = [] if release.partial else list(release.by_hashes(**digests))
    if release.partial:
        unknown.append("the same files are found once the release's working copy is made")
    near: list[tuple[int, float]] = []
    if settings.knn is None:
        unknown.append("no service of nearest neighbours stands beside this page")
    else:
        try:
            near = [
                (each.sample_id, each.similarity)
                for each in settings.knn.near_sample(
                    sample_id, NEAREST, one_of_each=False, safe=False
                )
                if each.sample_id != sample_id
            ]
        except UserError as error:
            unknown.append(str(error))
    bits = _bits(settings, row[shape.by_role["url"]] or "", [number for number, _ in near], unknown)
    shown = {number for number, _ in near} | set(files)
    kept = set(release.rows(list(shown))) - settings.releases.hidden(list(shown))
    return SamePictures(
        [number for number in files if number in kept and number != sample_id][:SHOWN],
        sorted((n, b) for n, b in bits.items() if n in kept and b <= SAME_DHASH)[:SHOWN],
        [(n, s) for n, s in near if n in kept and s >= SAME_COSINE][:SHOWN],
        unknown,
    )


def _bits(
    settings: ExploreSettings, url: str, others: list[int], unknown: list[str]
) -> dict[int, int]:
    """Of each other sample the bits of its dHash that differ from those of this URL's image."""
    if settings.calls is None or not others:
        return {}
    try:
        known = evidence(settings, url)
        own = known.download if known else None
        if not own or own["dhash"] is None or not own["pdq"]:
            return {}  # a flat image has no PDQ, and its dHash is that of all other flat ones
        found = settings.calls.compare_image(others, own["dhash"], bytes.fromhex(own["pdq"]))
    except (psycopg.OperationalError, PoolTimeout):
        unknown.append("the database, which has the dHashes, is away")
        return {}
    except UserError:  # a URL that the extractor would not take any more
        return {}
    return {each.sample_id: each.dhash_bits for each in found if each.dhash_bits is not None}
