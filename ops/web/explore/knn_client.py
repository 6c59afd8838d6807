"""The kNN service, asked over HTTP by the page of releases: `pairmill web explore --knn URL`."""

import base64
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException as BadAnswer
from typing import Any
from urllib.parse import urlsplit

from pairmill.ops.errors import UserError
from pairmill.workers.safe_text import safe

SECONDS = 10.0
MOST_BYTES = 16_000_000  # of an answer
HOW = "start `pairmill web explore` with --knn, the address of a `pairmill web knn`"
# the service is the admin's: no proxy of the environment stands between
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class NearSample:
    """A sample that the service found. similarity: cosine, 1 is alike."""

    sample_id: int
    similarity: float


class KnnClient:
    """A client of one service. Raises UserError for an address that is none."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"--knn is the address of a kNN service, http://HOST:PORT, not {url!r}")
        self._url = url.rstrip("/")

    def near_text(self, text: str, count: int, *, safe: bool = True) -> list[NearSample]:
        """The samples whose images are nearest to a text, of near duplicates one. safe: those alone
        that are known to be so."""
        return self._ask({"text": text}, count, one_of_each=True, safe=safe)

    def near_image(
        self, image: bytes, count: int, *, one_of_each: bool, safe: bool
    ) -> list[NearSample]:
        """The samples whose images are nearest to an image, the bytes of a file. one_of_each: of
        near duplicates the nearest alone."""
        query = {"image": base64.b64encode(image).decode()}
        return self._ask(query, count, one_of_each=one_of_each, safe=safe)

    def near_sample(
        self, sample_id: int, count: int, *, one_of_each: bool, safe: bool
    ) -> list[NearSample]:
        """As ``near_image``, of a sample's own."""
        return self._ask({"id": sample_id}, count, one_of_each=one_of_each, safe=safe)

    def _ask(
        self, query: dict[str, Any], count: int, *, one_of_each: bool, safe: bool
    ) -> list[NearSample]:
        """Raises UserError where the service is away, busy, or refuses."""
        body = query | {
            "num_images": count, "num_result_ids": count, "deduplicate": one_of_each,
            "use_safety_model": safe, "use_violence_detector": safe,
        }  # fmt: skip
        request = urllib.request.Request(
            f"{self._url}/knn-service",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with _OPENER.open(request, timeout=SECONDS) as answer:
                rows = json.loads(answer.read(MOST_BYTES))
            return [NearSample(int(row["id"]), float(row["similarity"])) for row in rows]
        except urllib.error.HTTPError as error:
            with error:
                raise UserError(_said(error.code, error.read(10_000))) from None
        except (OSError, BadAnswer):
            raise UserError("the service of nearest neighbours is away: try again later") from None
        except (ValueError, KeyError, TypeError):
            raise UserError("the service of nearest neighbours gave no answer of its own") from None


def _said(status: int, body: bytes) -> str:
    try:
        why = safe(json.loads(body)["error"], 300)
    except (ValueError, KeyError, TypeError):
        why = f"HTTP {status}"
    return f"the service of nearest neighbours refused: {why}"
