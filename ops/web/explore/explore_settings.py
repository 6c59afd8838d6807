"""What the routes of the page of releases work with."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pairmill.ops.web.explore.explore_calls import ExploreCalls
from pairmill.ops.web.explore.knn_client import KnnClient
from pairmill.ops.web.uploads import Decoder

if TYPE_CHECKING:
    from pairmill.ops.web.explore.open_releases import Releases


@dataclass(frozen=True)
class ExploreSettings:
    """releases: those that are shown. calls: of the database; None: there is none beside them.
    decoder: of uploads and thumbnails. knn: None where no service was named. thumbnails: whether
    images are fetched and shown. contact: whom to write to where this page does not suffice."""

    releases: "Releases"
    decoder: Decoder
    calls: ExploreCalls | None = None
    knn: KnnClient | None = None
    thumbnails: bool = False
    contact: str = ""
