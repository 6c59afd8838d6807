"""What bench/dedupe.py measures: hashes, cosines, texts and clusters, and other tools beside."""

import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from dedupe_images import Made, same_to_the_eye

from pairmill.ops.archive import columns
from pairmill.ops.archive.facts import Facts
from pairmill.ops.dedupe import confirm, minhash, semantic
from pairmill.ops.dedupe.duplicate_search import find_duplicates
from pairmill.ops.dedupe.near_hashes import near_pairs
from pairmill.ops.dedupe.spec import Dedupe
from pairmill.ops.dedupe.texts import bands_of, curve, folded

Longs = npt.NDArray[np.int64]
Halves = npt.NDArray[np.float16]
LOW = 8


@dataclass
class Planted:
    """Images and their transforms, a row each. first: int64[n], the row of the image that a row is
    of. vectors: float16[n, dims] of the demo's model."""

    rows: list[Made]
    first: Longs
    dhash: Longs
    vectors: Halves

    @property
    def low(self) -> npt.NDArray[np.bool_]:
        ones = np.bitwise_count(self.dhash.view(np.uint64))
        return (ones < LOW) | (ones > 64 - LOW)

    def of(self, transform: str) -> Longs:
        return np.array([n for n, row in enumerate(self.rows) if row.transform == transform])

    def distances(self, rows: Longs) -> Longs:
        x = self.dhash[rows] ^ self.dhash[self.first[rows]]
        return np.bitwise_count(x.view(np.uint64)).astype(np.int64)

    def cosines(self, a: Longs, b: Longs) -> npt.NDArray[np.float32]:
        x, y = confirm.unit(self.vectors[a]), confirm.unit(self.vectors[b])
        return np.asarray(np.einsum("ij,ij->i", x, y), np.float32)


def planted(rows: Iterator[Made], model: Any) -> Planted:
    """Embeds as it reads, so that no thumbnails are kept."""
    kept: list[Made] = []  # without thumbnails: 1 GB of 5,000 images
    vectors: list[Halves] = []
    waiting: list[bytes] = []
    for row in rows:
        waiting.append(row.thumbnail)
        kept.append(Made(**{**vars(row), "thumbnail": b""}))
        if len(waiting) == 256:
            vectors.append(model.score(waiting, ["an image"] * len(waiting)).image_embedding)
            waiting.clear()
            print(f"{row.original + 1} images", end="\r", file=sys.stderr, flush=True)
    if waiting:
        vectors.append(model.score(waiting, ["an image"] * len(waiting)).image_embedding)
    place: dict[int, int] = {}
    first = np.array([place.setdefault(row.original, n) for n, row in enumerate(kept)])
    return Planted(
        kept, first, np.array([row.dhash for row in kept], np.int64), np.concatenate(vectors)
    )


def by_transform(p: Planted, cosine: float) -> list[dict[str, Any]]:
    """Recall a transform: within 0 to 4 bits; at radius 3 with a hash that has a meaning, and with
    a cosine; median distance and low quantiles of the cosine."""
    found = []
    for name in dict.fromkeys(row.transform for row in p.rows if row.transform):
        rows = p.of(name)
        distance, near = p.distances(rows), p.cosines(rows, p.first[rows])
        clear = ~(p.low[rows] | p.low[p.first[rows]])
        found.append(
            {"transform": name, "images": len(rows), "median_bits": int(np.median(distance))}
            | {f"r{r}": round(float((distance <= r).mean()), 4) for r in range(5)}
            | {
                "r10": round(float((distance <= 10).mean()), 4),
                "clear_r3": round(float((clear & (distance <= 3)).mean()), 4),
                "confirmed_r3": round(
                    float((clear & (distance <= 3) & (near >= cosine)).mean()), 4
                ),
                "cosine_p01": round(float(np.quantile(near, 0.01)), 4),
                "cosine_p10": round(float(np.quantile(near, 0.1)), 4),
            }
        )
    return found


def pairs_within(hashes: Longs, radius: int) -> tuple[Longs, Longs]:
    """Rows whose hashes are within a radius, by the tested search; equal hashes too."""
    db = duckdb.connect()
    db.register("given", pa.table({"n": np.arange(len(hashes)), "dhash": hashes}))
    db.execute("CREATE TABLE rows AS FROM given")
    db.execute("CREATE TABLE hashes AS SELECT DISTINCT dhash FROM rows")
    near_pairs(db, "hashes", radius, "near")
    got = db.execute(
        "SELECT x.n AS a, y.n AS b FROM (FROM near UNION ALL SELECT dhash, dhash FROM hashes) p"
        " JOIN rows x ON x.dhash = p.a JOIN rows y ON y.dhash = p.b WHERE x.n <> y.n"
        " AND (p.a <> p.b OR x.n < y.n)"
    ).fetchnumpy()
    return np.asarray(got["a"], np.int64), np.asarray(got["b"], np.int64)


def thresholds(p: Planted, radius: int, steps: Sequence[float]) -> list[dict[str, Any]]:
    """Precision and recall of pairs within a radius by the cosine asked of them. True are pairs of
    one image, and pairs that are the same to the eye; recall is of the true pairs within the
    radius. flip is no transform of this: a mirrored image is another."""
    rows = np.array([n for n, row in enumerate(p.rows) if row.transform != "flip" and not p.low[n]])
    a, b = (rows[each] for each in pairs_within(p.dhash[rows], radius))
    true = p.first[a] == p.first[b]
    for n in np.flatnonzero(~true):
        true[n] = same_to_the_eye(p.rows[a[n]].small, p.rows[b[n]].small)
    cosine = p.cosines(a, b)
    found = []
    for step in steps:
        taken = cosine >= step if step else np.ones(len(a), np.bool_)
        found.append(
            {
                "min_cosine": step,
                "pairs": int(taken.sum()),
                "false": int((taken & ~true).sum()),
                "precision": round(float(true[taken].mean()), 5) if taken.any() else None,
                "recall": round(float(taken[true].mean()), 5),
            }
        )
    return found


def distractors(rows: int, hashes: Longs, first: Longs, threads: int) -> dict[str, Any]:
    """The search over random hashes and planted ones: rows/s, recall of planted pairs within 3
    bits, and how many pairs there are."""
    random_hashes = np.random.default_rng(1).integers(-(1 << 63), 1 << 63, rows, np.int64)
    every = np.unique(np.concatenate([random_hashes, hashes]))
    x = hashes ^ hashes[first]
    near = (np.bitwise_count(x.view(np.uint64)) <= 3) & (x != 0)
    two = np.sort(np.stack([hashes[near], hashes[first][near]], 1), 1)
    wanted = set(map(tuple, two.tolist()))
    with tempfile.TemporaryDirectory() as folder:
        db = duckdb.connect(f"{folder}/hashes.duckdb")
        db.execute(f"SET threads = {threads}")
        db.execute("SET memory_limit = '4GB'")
        db.register("given", pa.table({"dhash": every}))
        db.execute("CREATE TABLE hashes AS FROM given")
        start = time.perf_counter()
        near_pairs(db, "hashes", 3, "near")
        seconds = time.perf_counter() - start
        got = set(db.execute("SELECT a, b FROM near").fetchall())
        db.close()
    return {
        "hashes": len(every),
        "seconds": round(seconds, 1),
        "dhash_rows_per_s": round(len(every) / seconds),
        "planted_pairs": len(wanted),
        "dhash_recall": len(wanted & got) / len(wanted),
        "pairs": len(got),
    }


def whole(p: Planted, spec: Dedupe, model_id: int | None = 1) -> dict[str, Any]:
    """``find_duplicates`` over the planted rows: by transform the share that goes for its own
    image's group, and the share of rows that go for one that is neither of it nor the same."""
    ids = np.arange(len(p.rows), dtype=np.int64) + (1 << 14)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        facts = Facts(name, 1, 1 + len(ids) // (1 << 14))
        flat = pa.array(p.vectors.ravel())
        item = pa.field("item", pa.float16(), nullable=False)
        image = pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(item, p.vectors.shape[1]))
        schema = columns.embedding(p.vectors.shape[1])
        values = {"sample_id": ids, "counts": pa.array(np.ones(len(ids), bool)), "image": image}
        table = pa.table(
            [
                values[n] if n in values else pa.nulls(len(ids), schema.field(n).type)
                for n in schema.names
            ],
            schema=schema,
        )
        pq.write_table(table, facts.path("embedding", 1))
        db = duckdb.connect()
        pool = pa.table(
            {
                "sample_id": ids,
                "url": [f"https://a.example/{n}.jpg" for n in ids],
                "text": [""] * len(ids),
                "sha256": pa.nulls(len(ids), pa.binary()),
                "dhash": p.dhash,
                "width": [row.width for row in p.rows],
                "height": [row.height for row in p.rows],
                "similarity": pa.nulls(len(ids), pa.float32()),
                "removed": pa.array(np.zeros(len(ids), bool)),
            }
        )
        db.register("pool", pool)
        start = time.perf_counter()
        findings = find_duplicates(db, "pool", spec, [facts], folder / "w", model_id=model_id)
        seconds = time.perf_counter() - start
        got = db.execute("SELECT sample_id, of FROM duplicate").fetchnumpy()
    of = np.arange(len(ids))
    of[np.asarray(got["sample_id"]) - (1 << 14)] = np.asarray(got["of"]) - (1 << 14)
    goes = np.flatnonzero(of != np.arange(len(ids)))
    right = np.array(
        [
            p.first[n] == p.first[of[n]] or same_to_the_eye(p.rows[n].small, p.rows[of[n]].small)
            for n in goes
        ],
        bool,
    )
    return {
        "rows": len(ids),
        "seconds": round(seconds, 2),
        "rows_per_s": round(len(ids) / seconds),
        "went": len(goes),
        "precision": round(float(right.mean()), 5) if len(goes) else None,
        "findings": [f"{each.method} {each.rows}" for each in findings],
        "recall": {
            name: round(float((of[p.of(name)] != p.of(name)).mean()), 4)
            for name in dict.fromkeys(row.transform for row in p.rows if row.transform)
        },
    }


def clusters(p: Planted, cosine: float) -> dict[str, Any]:
    """The recall of SemDeDup's clusters: of the pairs at or above a cosine, in one cluster."""
    vectors = confirm.unit(p.vectors)
    count = int(len(vectors) ** 0.5)
    start = time.perf_counter()
    of, _ = semantic.nearest(
        vectors, semantic.kmeans(vectors[:: max(1, len(vectors) // (64 * count))], count)
    )
    seconds = time.perf_counter() - start
    together = every = 0
    for first in range(0, len(vectors), 2048):
        near = np.triu(vectors[first : first + 2048] @ vectors.T >= cosine, first + 1)
        a, b = np.nonzero(near)
        together += int((of[a + first] == of[b]).sum())
        every += len(a)
    return {
        "cosine": cosine,
        "clusters": count,
        "pairs": every,
        "recall": round(together / max(every, 1), 4),
        "rows_per_s": round(len(vectors) / seconds),
    }


def package_texts(count: int) -> list[str]:
    """One-line descriptions of Debian's packages, which are about as long as captions."""
    text = subprocess.run(
        ["apt-cache", "dumpavail"], capture_output=True, check=True
    ).stdout.decode()
    lines = re.findall(r"^Description(?:-en)?: (.+)$", text, re.M)
    distinct = list(dict.fromkeys(lines))
    random.Random(1).shuffle(distinct)
    return distinct[:count]


def changed(text: str, choose: random.Random) -> dict[str, str]:
    words = text.split()
    at = choose.randrange(len(text))
    dropped = choose.randrange(len(words))
    return {
        "case_and_space": f"  {text.upper()} ".replace(" ", "  "),
        "typo": text[:at] + choose.choice("abcdefgh") + text[at + 1 :],
        "word_dropped": " ".join(words[:dropped] + words[dropped + 1 :]),
        "site_added": f"{text} | photo shop",
        "number_added": f"{text} {choose.randrange(100)}",
        "words_swapped": " ".join([*words[1:], words[0]]),
    }


def texts(count: int, threshold: float) -> dict[str, Any]:
    """MinHash over planted texts: recall of pairs at or above the Jaccard threshold, by change."""
    choose = random.Random(2)
    originals = [t for t in package_texts(count * 2) if len(t) >= 25][:count]
    rows, first, change = [], [], []
    for text in originals:
        rows.append(text)
        first.append(len(rows) - 1)
        change.append("")
        base = first[-1]
        for name, other in changed(text, choose).items():
            rows.append(other)
            first.append(base)
            change.append(name)
    db = duckdb.connect()
    ids = np.arange(len(rows))
    db.register("pool", pa.table({"sample_id": ids, "text": rows}))
    db.execute(
        "CREATE TABLE rows AS SELECT sample_id, 1 AS key_text,"
        " sample_id::HUGEINT + (1::HUGEINT << 95) AS rank FROM pool"
    )
    start = time.perf_counter()
    minhash.near_texts(db, "pool", "rows", threshold, "found")
    seconds = time.perf_counter() - start
    gone = set(db.execute("SELECT sample_id FROM found").fetchnumpy()["sample_id"].tolist())
    plain = folded(pa.array(rows))
    near = minhash.jaccard(plain, plain.take(pa.array(first))) >= threshold
    found = {}
    for name in dict.fromkeys(change[1:]):
        if name:
            places = [n for n in ids if change[n] == name and near[n]]
            found[name] = {
                "pairs": len(places),
                "recall": round(sum(n in gone for n in places) / max(len(places), 1), 4),
            }
    every = [n for n in ids if change[n] and near[n]]
    bands, width = bands_of(threshold)
    return (
        {
            "threshold": threshold,
            "bands": bands,
            "rows_of_a_band": width,
            "texts": len(rows),
            "seconds": round(seconds, 1),
            "rows_per_s": round(len(rows) / seconds),
            "recall": round(sum(n in gone for n in every) / len(every), 4),
            "precision": 1.0,  # what the bands propose is compared by the similarity itself
            "by_change": found,
            "curve": curve(threshold),
        }
        | {"datasketch": _datasketch(plain.to_pylist()[:20_000], first, near, threshold)}
    )


def _datasketch(rows: list[str], first: list[int], near: Any, threshold: float) -> dict[str, Any]:
    """datasketch's own LSH at the same threshold, with its own choice of bands."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=64)
    start = time.perf_counter()
    hashed = []
    for n, text in enumerate(rows):
        made = MinHash(num_perm=64, seed=1)
        made.update_batch([text[i : i + 4].encode() for i in range(max(1, len(text) - 3))])
        hashed.append(made)
        index.insert(n, made)
    pairs = [n for n in range(len(rows)) if first[n] != n and near[n]]
    found = sum(first[n] in index.query(hashed[n]) for n in pairs)
    seconds = time.perf_counter() - start
    return {
        "texts": len(rows),
        "rows_per_s": round(len(rows) / seconds),
        "recall": round(found / max(len(pairs), 1), 4),
        "bands": f"{index.b} of {index.r}",
    }


def imagededup_search(hashes: Longs, radius: int) -> dict[str, Any]:
    """imagededup's own search, over our hashes: pairs and rows/s."""
    try:
        from imagededup.methods import DHash  # type: ignore[import-untyped]
    except ImportError as error:
        return {"missing": str(error)}
    encoded = {str(n): f"{int(h) & (1 << 64) - 1:016x}" for n, h in enumerate(hashes)}
    start = time.perf_counter()
    found = DHash(verbose=False).find_duplicates(
        encoding_map=encoded, max_distance_threshold=radius, num_dist_workers=1
    )
    seconds = time.perf_counter() - start
    pairs = {tuple(sorted((int(a), int(b)))) for a, others in found.items() for b in others}
    start = time.perf_counter()
    ours = set(zip(*(each.tolist() for each in pairs_within(hashes, radius)), strict=True))
    own_seconds = time.perf_counter() - start
    ours = {tuple(sorted(pair)) for pair in ours}
    return {
        "hashes": len(hashes),
        "rows_per_s": round(len(hashes) / seconds),
        "ours_rows_per_s": round(len(hashes) / own_seconds),
        "pairs": len(pairs),
        "ours": len(ours),
        "same": pairs == ours,
    }
