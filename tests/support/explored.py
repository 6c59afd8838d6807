"""A small release of hostile rows, and its page over real HTTP."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pairmill.ops.web.explore.explore_settings import ExploreSettings
from pairmill.ops.web.explore.explore_site import make_explore
from pairmill.ops.web.explore.open_releases import Releases
from pairmill.ops.web.explore.preparation import missing, prepare
from pairmill.ops.web.uploads import Decoder
from support.made_releases import made_release, rows_of

ROWS = 1_500
WORDS = ("cat", "dog", "Straße", "naïve", "猫", "42", "red", "of", "the", "x" * 40)
HOSTILE = (
    "<script>alert(1)</script>", "\u202eevil\u2066", "'; drop table release; --", "{{ 7*7 }}",
    '" onmouseover="x', "=HYPERLINK(1)",
)  # fmt: skip
URLS = (
    "https://{host}/{i}.jpg", "http://user:pw@{host}:8080/{i}.jpg", "javascript:alert({i})",
    "https://{host}/{i}.jpg?q='><img src=x>",
)  # fmt: skip
HOSTS = ("a.example", "www.a.example", "a.example.org", "a-b.example", "xa.example", "b.example")


def random_table(rows: int = ROWS, seed: int = 7) -> pa.Table:
    rng = np.random.default_rng(seed)
    ids = np.cumsum(rng.integers(1, 1000, rows)).tolist()

    def some(values: Any, share: float = 0.1) -> list[Any]:
        gone = rng.random(rows) < share
        return [None if out else value for value, out in zip(values, gone, strict=True)]

    picked = [" ".join(rng.choice(WORDS, rng.integers(0, 6))) for _ in ids]
    texts = [f"{text} {HOSTILE[i % 60]}" if i % 60 < 6 else text for i, text in enumerate(picked)]
    urls = [URLS[int(rng.integers(4))].format(host=rng.choice(HOSTS), i=i) for i in ids]
    digests = [f"{i % 700:032x}" for i in range(rows)]
    return rows_of(
        ids, URL=urls, TEXT=texts, LANGUAGE=some(rng.choice(["en", "de", "zh"], rows).tolist()),
        LICENSE=some(["https://creativecommons.org/licenses/by/4.0/"] * rows, 0.8),
        NSFW=some(rng.choice(["UNLIKELY", "NSFW"], rows).tolist()), md5=some(digests),
        WIDTH=pa.array(some(rng.integers(50, 3000, rows).tolist()), pa.int32()),
        HEIGHT=pa.array(some(rng.integers(50, 3000, rows).tolist()), pa.int32()),
        similarity=pa.array(np.round(rng.uniform(0.2, 0.5, rows), 2), pa.float64()),
        punsafe=pa.array(some(rng.random(rows).tolist()), pa.float32()),
        mood=pa.array(some(rng.normal(0, 1, rows).tolist()), pa.float32()),
    )  # fmt: skip


def words_in(text: str) -> set[str]:
    spaced = re.sub(r"([\u4e00-\u9fff])", r" \1 ", text.lower())
    return set(re.findall(r"[^\W_]+", spaced))


def host_of(url: str) -> str:
    found = re.match(r"https?://([^/?#]*)", url)
    return found[1].rpartition("@")[2].partition(":")[0] if found else ""


def settings_of(folders: list[Path], work: Path, hidden: set[int]) -> ExploreSettings:
    """Without a database; ``hidden`` may change while the page runs."""
    gone: Callable[[Any], set[int]] = lambda ids: hidden & set(ids)  # noqa: E731
    releases = Releases(folders, work=work, hidden=gone)
    return ExploreSettings(releases, Decoder(1))


def prepared(settings: ExploreSettings) -> None:
    assert settings.releases.work is not None
    for release in missing(settings.releases):
        prepare(release, settings.releases.work, lambda done, steps: None)
    settings.releases.look()


__all__ = [
    "HOSTILE", "host_of", "made_release", "make_explore", "prepared", "random_table", "settings_of",
    "words_in",
]  # fmt: skip
