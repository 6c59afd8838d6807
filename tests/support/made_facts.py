"""Made-up facts: a folder as the archive writes it, of any number of rows, at about 4·10^5 rows/s a core.

Of a seed, rows and options the files are the same. They hold what a crawl's would: about half of
the texts English, a seventh nolang, seven in ten downloaded, those scored.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pairmill.ops.archive import columns
from pairmill.ops.archive.facts import Facts

CHUNK = 1_000_000
PHRASES = 4096
HASHES = {"md5": 16, "sha1": 20, "sha256": 32, "pdq": 32}  # bytes
# a word table a language; the share of the rows; null is nolang
WORDS: dict[str | None, tuple[float, str]] = {
    "en": (0.45, "a the red old small house by of lake cat dog with tree photo sky blue person"),
    None: (0.15, "img dsc 0042 jpg logo v2 xl print 2019 iphone case canon eos 18x24 nr sku"),
    "de": (0.1, "ein der rote altes kleines haus am see katze hund mit baum foto himmel blau über"),
    "fr": (0.1, "une la rouge vieille petite maison au lac chat chien avec arbre photo ciel bleu"),
    "ru": (0.1, "красный старый дом озеро кошка собака дерево фото небо синий человек и на с"),
    "zh": (0.1, "红色 老 房子 湖边 猫 狗 树 照片 天空 蓝色 人 在 和 小 大"),
}
PLANTED = ("url", "bytes", "near", "text")
Longs = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Made:
    """What the rows are like. failed: share that gave no image. duplicates: share of rows that
    repeat an earlier one in turn by the kinds of PLANTED: the URL in another spelling, the bytes,
    a dHash within 3 bits, the text in another case. superseded: share of rows with an earlier
    attempt, which does not count. models, taggers: model_ids. dims: of float16 embeddings of the
    first model; 0: none. hashes: those filled, of md5, sha1, sha256, dhash and pdq."""

    rows: int
    seed: int = 0
    first: int = 1
    per_batch: int = 10_000
    failed: float = 0.3
    duplicates: float = 0.05
    superseded: float = 0.0
    models: Sequence[int] = (1,)
    taggers: Sequence[int] = ()
    dims: int = 0
    hashes: Sequence[str] = ("md5", "sha1", "sha256", "dhash", "pdq")
    hosts: int = 100_000


def made_facts(folder: Path, rows: int, **options: Any) -> Facts:
    """Write ``folder``/TABLE.parquet for batches from ``first`` on, and ``planted.parquet``
    (sample_id, of, kind): which row repeats which, and how. options: those of ``Made``."""
    made = Made(rows, **options)
    folder.mkdir(parents=True, exist_ok=True)
    last = made.first + max(0, rows - 1) // made.per_batch
    facts = Facts(str(folder), made.first, last)
    writers: dict[str, pq.ParquetWriter] = {}
    try:
        for start in range(0, max(rows, 1), CHUNK):
            chunk = _Chunk(made, start, min(CHUNK, rows - start))
            for name, table in chunk.tables():
                if name not in writers:
                    writers[name] = pq.ParquetWriter(
                        folder / f"{name}.parquet",
                        table.schema,
                        compression="zstd",
                        compression_level=1,
                        use_dictionary=DICTIONARY,
                        write_statistics=STATISTICS,
                    )
                writers[name].write_table(table, row_group_size=122_880)
    finally:
        for writer in writers.values():
            writer.close()
    return facts


DICTIONARY = ["language", "language_detector", "license", "link_kind", "outcome", "attempt",
              "submission_id", "wat_id", "http_status"]  # fmt: skip
STATISTICS = ["sample_id", "counts", "attempt"]


class _Chunk:
    """``count`` rows from row ``start`` on."""

    def __init__(self, made: Made, start: int, count: int) -> None:
        self.made, self.count = made, count
        self.random = np.random.default_rng((made.seed, start))
        self.index: Longs = np.arange(start, start + count, dtype=np.int64)
        batch, n = np.divmod(self.index, made.per_batch)
        self.ids: Longs = (made.first + batch) << 14 | n
        # a copy's original is an earlier row of the chunk; a copy is nobody's original
        copies = self.random.random(count) < made.duplicates
        copies[:1] = False
        kinds = np.cumsum(copies) % len(PLANTED)
        originals = np.flatnonzero(~copies)
        self.copy = np.flatnonzero(copies)
        before = np.searchsorted(originals, self.copy)
        # rounded down, so that it is below the number of originals before
        self.of = originals[(self.random.random(len(self.copy)) * before).astype(np.int64)]
        self.kind = kinds[self.copy]

    def tables(self) -> Iterator[tuple[str, pa.Table]]:
        made = self.made
        yield "pair", self.pair()
        outcome = np.where(self.random.random(self.count) < made.failed, 3, 0).astype(np.int16)
        # what repeats an image has one
        images = self.kind < PLANTED.index("text")
        outcome[self.copy[images]] = outcome[self.of[images]]
        attempt = np.where(self.random.random(self.count) < made.superseded, 2, 1).astype(np.int16)
        yield "download", self.download(outcome, attempt)
        done = np.flatnonzero(outcome == 0)
        for model in made.models:
            yield f"score-{model}", self.score(done, attempt)
        for tagger in made.taggers:
            yield f"tag-{tagger}", self.tag(done, attempt)
        if made.dims:
            yield f"embedding-{made.models[0]}", self.embedding(done, attempt)
        yield (
            "planted",
            pa.table(
                {
                    "sample_id": self.ids[self.copy],
                    "of": self.ids[self.of],
                    "kind": pa.array(PLANTED).take(pa.array(self.kind)),
                }
            ),
        )

    def _of_kind(self, kind: str) -> tuple[Longs, Longs]:
        """The copies of a kind and their originals, as places in the chunk."""
        chosen = self.kind == PLANTED.index(kind)
        return self.copy[chosen], self.of[chosen]

    def _texts(self) -> tuple[pa.Array, pa.Array]:
        """Language and text of each row: two phrases of the language's, and a number in some."""
        names, shares = list(WORDS), np.array([share for share, _ in WORDS.values()])
        language = self.random.choice(len(names), self.count, p=shares / shares.sum())
        phrases = pa.array(_phrases(self.made.seed))
        first, second = (
            phrases.take(
                pa.array(language * PHRASES + self.random.integers(0, PHRASES, self.count))
            )
            for _ in range(2)
        )
        number = pa.array(self.index, mask=self.random.random(self.count) < 0.5)
        text = pc.binary_join_element_wise(
            first, second, number.cast(pa.string()), " ", null_handling="skip"
        )
        return pa.array(names, pa.string()).take(pa.array(language)), text

    def pair(self) -> pa.Table:
        language, text = self._texts()
        host = pa.array(self.random.integers(0, self.made.hosts, self.count)).cast(pa.string())
        name = pa.array(self.index).cast(pa.string())
        of, copies = np.arange(self.count), np.zeros(self.count, bool)
        places, originals = self._of_kind("url")
        of[places], copies[places] = originals, True
        prefix = pa.array(["https://h", "http://www.h"]).take(pa.array(copies.astype(np.int8)))
        suffix = pa.array([".jpg", ".jpg?utm_source=x"]).take(pa.array(copies.astype(np.int8)))
        at = pa.array(of)
        url = pc.binary_join_element_wise(
            prefix, host.take(at), ".example/i/", name.take(at), suffix, ""
        )
        said, originals = self._of_kind("text")
        of = np.arange(self.count)
        of[said] = originals
        text, language = text.take(pa.array(of)), language.take(pa.array(of))
        shout = np.zeros(self.count, bool)
        shout[said] = True
        text = pc.if_else(pa.array(shout), pc.utf8_upper(text), text)
        licence = np.where(self.random.random(self.count) < 0.05, 0, -1)
        values = {
            "sample_id": self.ids,
            "counts": pa.array(np.ones(self.count, bool)),
            "url": url,
            "text": text,
            "language": language,
            "language_probability": self.random.random(self.count, np.float32),
            "language_detector": _same("cld3", self.count),
            "license": pa.array(["https://creativecommons.org/licenses/by/4.0/"]).take(
                pa.array(np.zeros(self.count, np.int8), mask=licence < 0)
            ),
            "link_kind": _same("image", self.count),
            "wat_id": 1 + self.index // 1_000_000,
            "page": (self.index % 50_000).astype(np.int32),
            "page_url": None,
            "submission_id": 1 + self.index // 10_000,
        }
        return _table(columns.PAIR, values, self.count)

    def download(self, outcome: npt.NDArray[np.int16], attempt: npt.NDArray[np.int16]) -> pa.Table:
        done = outcome == 0
        none = ~done
        values: dict[str, Any] = {
            "sample_id": self.ids,
            "counts": pa.array(np.ones(self.count, bool)),
            "attempt": attempt,
            "outcome": outcome,
            "http_status": pa.array(np.where(done, 200, 404).astype(np.int16)),
        }
        integers = self.random.integers
        for key, low, high in (("bytes", 2_000, 400_000), ("width", 60, 2_000),
                               ("height", 60, 2_000)):  # fmt: skip
            values[key] = pa.array(integers(low, high, self.count, np.int32), mask=none)
        same, originals = self._of_kind("bytes")
        of = np.arange(self.count)
        of[same] = originals
        near, near_of = self._of_kind("near")
        for key, width in HASHES.items():
            if key in self.made.hashes:
                raw = np.frombuffer(self.random.bytes(width * self.count), f"V{width}")[of]
                values[key] = _binary(raw, width, none)
        if "dhash" in self.made.hashes:
            dhash = integers(-(1 << 63), 1 << 63, self.count, np.int64)[of]
            flips = np.zeros(len(near), np.int64)
            for _ in range(3):  # 3 bits at most: two may be the same
                flips ^= np.left_shift(np.int64(1), integers(0, 64, len(near)))
            dhash[near] = dhash[near_of] ^ flips
            values["dhash"] = pa.array(dhash, mask=none)
        values["submission_id"] = 1_000_000 + self.index // 10_000
        table = _table(columns.DOWNLOAD, values, self.count)
        return self._superseded(table, attempt)

    def _superseded(self, table: pa.Table, attempt: npt.NDArray[np.int16]) -> pa.Table:
        """With an attempt that timed out, and does not count, before each second one."""
        again = np.flatnonzero(attempt == 2)
        if not len(again):
            return table
        count = len(again)
        values = {
            "sample_id": self.ids[again],
            "counts": pa.array(np.zeros(count, bool)),
            "attempt": pa.array(np.ones(count, np.int16)),
            "outcome": pa.array(np.full(count, 2, np.int16)),
            "submission_id": np.full(count, 999_999),
        }
        earlier = _table(columns.DOWNLOAD, values, count)
        order = np.argsort(np.concatenate([np.arange(self.count), again - 0.5]), kind="stable")
        return pa.concat_tables([table, earlier]).take(pa.array(order))

    def _scored(self, done: Longs, attempt: npt.NDArray[np.int16]) -> dict[str, Any]:
        return {
            "sample_id": self.ids[done],
            "counts": pa.array(np.ones(len(done), bool)),
            "attempt": attempt[done],
            "submission_id": 2_000_000 + self.index[done] // 10_000,
        }

    def score(self, done: Longs, attempt: npt.NDArray[np.int16]) -> pa.Table:
        values = self._scored(done, attempt) | {
            "outcome": np.zeros(len(done), np.int16),
            "similarity": self.random.normal(0.24, 0.06, len(done)).astype(np.float32).clip(-1, 1),
            "text_tokens": self.random.integers(4, 20, len(done), np.int16),
        }
        return _table(columns.SCORE, values, len(done))

    def tag(self, done: Longs, attempt: npt.NDArray[np.int16]) -> pa.Table:
        values = self._scored(done, attempt) | {"value": self.random.random(len(done), np.float32)}
        return _table(columns.TAG, values, len(done))

    def embedding(self, done: Longs, attempt: npt.NDArray[np.int16]) -> pa.Table:
        """Random directions; a near or exact copy has its original's with a little noise."""
        dims = self.made.dims
        values = self._scored(done, attempt)
        of = np.arange(self.count)
        for kind in ("bytes", "near"):
            places, originals = self._of_kind(kind)
            of[places] = originals
        for side in ("image", "text"):
            vectors = self.random.standard_normal((self.count, dims), np.float32)
            if side == "image":
                vectors = vectors[of] + 0.01 * vectors
            vectors = vectors[done]
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            flat = pa.array(vectors.astype(np.float16).ravel())
            field = pa.field("item", pa.float16(), nullable=False)
            values[side] = pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(field, dims))
        return _table(columns.embedding(dims), values, len(done))


@cache
def _phrases(seed: int) -> list[str]:
    """PHRASES of each language, 2 to 5 words long; a word at a time costs three times as much."""
    choose = Random(seed)
    return [
        " ".join(choose.choices(words.split(), k=choose.randint(2, 5)))
        for _, words in WORDS.values()
        for _ in range(PHRASES)
    ]


def _same(word: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int8)), [word]).cast(
        pa.string()
    )


def _binary(raw: npt.NDArray[np.void], width: int, none: npt.NDArray[np.bool_]) -> pa.Array:
    ends = np.zeros(len(raw) + 1, np.int32)
    np.cumsum(np.where(none, 0, width), out=ends[1:])
    valid = np.packbits(~none, bitorder="little")
    buffers = [pa.py_buffer(part) for part in (valid, ends, raw[~none])]
    return pa.Array.from_buffers(pa.binary(), len(raw), buffers)


def _table(schema: pa.Schema, values: dict[str, Any], count: int) -> pa.Table:
    arrays = []
    for name in schema.names:
        value = values.get(name)
        kind = schema.field(name).type
        if value is None:
            arrays.append(pa.nulls(count, kind))
        else:
            arrays.append(value if isinstance(value, pa.Array) else pa.array(value, kind))
    return pa.Table.from_arrays(arrays, schema=schema)
