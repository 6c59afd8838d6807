"""What a crawl of so many links would need, from a line that bench/line.py measured: arithmetic.

All is linear in links, pairs, URLs, thumbnails or scores, whichever the stage counts, but for the
WAL of mill.seen_url (``page_images``), the ring of thumbnails, and what hosts' files say, which is
kept for a day.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

PAGE = 8192
LEAF_FILL = 0.7  # of a leaf whose keys come in random order; a page image leaves its hole out
KEY_BYTES = 40  # of the index a known URL: 369 MB at 10^7, 1,219 MB at 3·10^7
EMBEDDING_DISK = 3353 / 3072  # bytes for each byte of the vectors: 2 of 768 float16, in a row
EMBEDDING_WAL = 3390 / 3072
RING = 8 * 64 * 10_000  # slots, batches of each, pairs: mill.setting's defaults
BATCH = 10_000
DAY = 86_400


@dataclass(frozen=True)
class Stage:
    """One stage's cost. units: its own: links with alt, URLs, thumbnails, pairs. client, server:
    core-seconds; the server's have the steward's. wal: bytes. disk: bytes that the database grew
    by."""

    units: int
    wall: float
    client: float
    server: float
    wal: int
    disk: int


@dataclass(frozen=True)
class Measured:
    """A line's run. links: with alt, of its WAT file. young, known: the file's extraction where no
    URL is known, and where all are. image, thumbnail: mean bytes. disk: bytes that each table grew
    by. dims: of the model."""

    links: int
    wat_bytes: int
    pairs: int
    images: int
    scored: int
    kept: int
    image: float
    thumbnail: float
    dims: int
    young: Stage
    known: Stage
    download: Stage
    score: Stage
    release: Stage
    disk: Mapping[str, int]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Measured":
        """From what ``asdict`` and JSON made of it. Raises KeyError where a value is missing."""
        stages = {"young", "known", "download", "score", "release"}
        found = {field.name: values[field.name] for field in fields(cls)}
        return cls(**{k: Stage(**v) if k in stages else v for k, v in found.items()})


@dataclass(frozen=True)
class Assumed:
    """What the run cannot show. SOURCES says where each default is from."""

    pair_share: float = 29_000 / 405_232
    kept_share: float = 0.1
    links_a_wat: float = 405_232
    wat_mb: float = 313
    image_kb: float = 70
    dims: float = 512
    volunteers: float = 300
    batch_minutes: float = 10
    merge_rows: float = 44_000
    known_before: float = 0
    checkpoint_minutes: float = 30


SOURCES = {
    "pair_share": "of links with alt: LAION kept 29,000 of 405,232 a WAT file, after its filters"
    " and without URLs that it knew",
    "kept_share": "of scored pairs: LAION dropped about 90 %",
    "links_a_wat": "with alt: a file of CC-MAIN-2022-40",
    "wat_mb": "the same file, gzip",
    "image_kb": "mean of a download: a batch of 10,000 took LAION 10 to 15 minutes at 5 to 10 Mbps,"
    " which is 37 to 112 KB a URL",
    "dims": "of the model: ViT-B-32's; ViT-L-14 has 768",
    "volunteers": "LAION's 300 nodes",
    "batch_minutes": "of a volunteer: LAION's 10 to 15",
    "merge_rows": "a second, of the one merge: bench/ingest.py at 10^7 to 3·10^7 known URLs",
    "known_before": "URLs in mill.seen_url before the crawl",
    "checkpoint_minutes": "checkpoint_timeout, with a max_wal_size that is never reached before",
}


def assumed(given: Sequence[str]) -> Assumed:
    """The defaults, changed by ``name=value``. Raises ValueError."""
    changed = {}
    for each in given:
        name, _, value = each.partition("=")
        if name not in SOURCES:
            raise ValueError(f"there is no assumption {name!r}: it is one of {', '.join(SOURCES)}")
        try:
            changed[name] = float(value)
        except ValueError:
            raise ValueError(f"{name} wants a number, as {name}=0.5, not {value!r}") from None
        if not (math.isfinite(changed[name]) and changed[name] >= 0):
            raise ValueError(f"{name} is a number from 0, not {value!r}")
        if changed[name] == 0 and name != "known_before":
            raise ValueError(f"{name} cannot be 0")
        if name.endswith("_share") and changed[name] > 1:
            raise ValueError(f"{name} is a share, at most 1, not {value!r}")
    return Assumed(**changed)


def crawls(text: str) -> list[float]:
    """Numbers of links, with commas. Raises ValueError."""
    try:
        found = [float(each) for each in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(math.isfinite(each) and each >= 1 for each in found):
        raise ValueError(f"a table wants numbers of links with commas, as 1e7,1e9, not {text!r}")
    return found


def page_images(keys: float, known: float) -> float:
    """Bytes of WAL that ``keys`` new keys between two checkpoints write as images of leaves.

    A leaf is logged whole at its first change after a checkpoint. known: keys of the index, which
    are md5s, so that each new one meets a leaf at random: of L leaves L · (1 - e^(-keys / L)) are
    met.
    """
    leaves = known * KEY_BYTES / PAGE
    if leaves < 1:
        return 0.0
    return -math.expm1(-keys / leaves) * leaves * PAGE * LEAF_FILL


def needs(m: Measured, a: Assumed, links: float, gpu_rate: float | None) -> dict[str, Any]:
    """Of so many links with alt. gpu_rate: pairs a second of one card; None: not known.

    Hours are of one core; GB and TB decimal; ``disk_gb`` after the crawl, ``ring_gb`` the most that
    thumbnails take meanwhile.
    """
    fresh = min(1.0, a.pair_share / (m.pairs / m.links))  # the share of links not known before
    young, known = links * fresh, links * (1 - fresh)
    pairs = young * m.pairs / m.links
    images = pairs * m.images / m.download.units
    scored = images * m.scored / m.images
    units = {"download": pairs, "score": images, "release": pairs}
    hours = {"extract": _hours((m.young, young), (m.known, known))}
    hours |= {name: _hours((getattr(m, name), count)) for name, count in units.items()}
    vectors = 4 * (a.dims - m.dims)  # two of float16
    wal = {
        "extract": _each(m.young, "wal") * young + _each(m.known, "wal") * known,
        "seen_url": _merge_wal(a, pairs),
        "download": _each(m.download, "wal") * pairs,
        "score": _each(m.score, "wal") * images + vectors * EMBEDDING_WAL * scored,
    }
    urls_a_second = a.volunteers * BATCH / (60 * a.batch_minutes)
    host_files = _each_row(m, "mill.host_file", m.pairs) * min(pairs, urls_a_second * DAY)
    return {
        "links": links,
        "wat_files": links / a.links_a_wat,
        "pairs": pairs,
        "images": images,
        "scored": scored,
        "release_rows": scored * a.kept_share,
        "core_hours": hours,
        "gpu_hours": "unknown" if gpu_rate is None else scored / gpu_rate / 3600,
        "wal_gb": {name: value / 1e9 for name, value in wal.items()},
        "disk_gb": _disk(m, vectors, {"pairs": pairs, "scored": scored}),
        "ring_gb": min(images, RING * m.images / m.download.units) * m.thumbnail / 1e9,
        "host_file_gb": host_files / 1e9,
        "network_tb": {
            "wat_files": links / a.links_a_wat * a.wat_mb / 1e6,
            "images": images * a.image_kb / 1e9,
            "thumbnails": 2 * images * m.thumbnail / 1e12,  # from the downloader, to the scorer
        },
        "download_days": pairs / urls_a_second / DAY,
        "merge_hours": {
            "all_links": links * m.pairs / m.links / a.merge_rows / 3600,
            "new_alone": pairs / a.merge_rows / 3600,
        },
    }  # fmt: skip


def _each(stage: Stage, what: str) -> float:
    return float(getattr(stage, what)) / stage.units


def _hours(*counts: tuple[Stage, float]) -> dict[str, float]:
    return {
        side: sum(_each(stage, side) * count for stage, count in counts) / 3600
        for side in ("client", "server")
    }


def _merge_wal(a: Assumed, pairs: float) -> float:
    """Page images of the index of known URLs, a checkpoint after the other: extraction goes on no
    faster than the downloads. In 20 steps, since the index grows."""
    between = a.volunteers * BATCH / a.batch_minutes * a.checkpoint_minutes
    step = pairs / 20
    return sum(
        step / between * page_images(between, a.known_before + step * (n + 0.5)) for n in range(20)
    )


LASTING = {
    "mill.pair": "pairs", "mill.page": "pairs", "mill.seen_url": "pairs", "mill.download": "pairs",
    "mill.score": "scored", "mill.embedding": "scored",
}  # fmt: skip
# what comes and goes: its size follows from what is under way, and not from the crawl's
PASSING = (
    "mill.thumbnail",
    "mill.host_file",
    "mill.submission_download",
    "mill.submission_extract",
)


def _each_row(m: Measured, table: str, rows: int) -> float:
    return m.disk.get(table, 0) / rows


def _disk(m: Measured, vectors: float, counts: Mapping[str, float]) -> dict[str, float]:
    measured = {"pairs": m.pairs, "scored": m.scored}
    found = {
        table.removeprefix("mill."): _each_row(m, table, measured[unit]) * counts[unit]
        for table, unit in LASTING.items()
    }
    found["embedding"] += vectors * EMBEDDING_DISK * counts["scored"]
    rest = sum(
        size for name, size in m.disk.items()
        if name.startswith("mill.") and name not in LASTING and name not in PASSING
    )  # fmt: skip
    found["others"] = rest / m.pairs * counts["pairs"]
    return {name: value / 1e9 for name, value in found.items()}
