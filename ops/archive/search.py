"""The search for what removals name in detached partitions: hashes by mill.image_key, whatever has
no index by reading the files."""

from collections.abc import Callable, Iterable
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.admin.removal_pdq import PdqIndex
from pairmill.ops.archive.catalogue import Partition, detached
from pairmill.ops.archive.facts import file_system
from pairmill.ops.archive.reading import POSITIONS
from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text, rows

HASHES = ("md5", "sha1", "sha256")
READ = 100_000  # PDQs at once
MEMORY = "2GB"  # of DuckDB; more goes to the disk
Removal = dict[str, Any]
Progress = Callable[[int, int], None]


def find_in_detached(connection: psycopg.Connection[Any], first: int, progress: Progress) -> None:
    """Note the pairs of detached partitions that removals from a number on name whose search is not
    over: their hosts, prefixes and images; URLs are looked up in mill.seen_url, which has them all.

    progress is called with (partitions searched, partitions). Raises UserError where a file cannot
    be read: the search is not over then, and no release is built.
    """
    partitions = detached(connection)
    if not partitions:
        return
    wanted = rows(
        connection,
        "select removal_id, host, subdomains, prefix, uuid_send(md5) as md5, sha1, sha256, dhash,"
        " pdq, pdq_distance from mill.removal where removal_id >= %s and found_at is null",
        first,
    )
    keyed = _keyed(connection, wanted)
    for done, partition in enumerate(partitions):
        progress(done, len(partitions))
        _PartitionSearch(connection, partition, wanted, keyed).run()
    progress(len(partitions), len(partitions))


def _keyed(connection: psycopg.Connection[Any], wanted: Iterable[Removal]) -> list[int]:
    """The archived samples that may have an image of these hashes, in order."""
    keys = {
        int.from_bytes(removal[name][:8], "big", signed=True)
        for removal in wanted
        for name in HASHES
        if removal[name] is not None
    }
    found = connection.execute(
        "select distinct sample_id from mill.image_key where key = any (%s) order by 1",
        (sorted(keys),),
    )
    return [row[0] for row in found]


class _PartitionSearch:
    """One partition's files."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        partition: Partition,
        wanted: list[Removal],
        keyed: list[int],
    ) -> None:
        self._connection = connection
        self._facts = partition.facts()
        self._wanted = wanted
        first, last = partition.first_batch * POSITIONS, (partition.last_batch + 1) * POSITIONS
        self._keyed = [sample_id for sample_id in keyed if first <= sample_id < last]
        self._db = duckdb.connect(config={"memory_limit": MEMORY})
        if "://" in self._facts.folder:
            self._db.register_filesystem(file_system(self._facts.folder))

    def run(self) -> None:
        try:
            if self._facts.has("pair"):
                self._hosts()
            if self._facts.has("download"):
                self._hashes()
                self._pdqs()
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            raise UserError(
                f"{self._facts.folder} cannot be searched for removed pairs, and the search is not"
                f" over: {error}; `pairmill archive verify` tells what is wrong with it"
            ) from None
        finally:
            self._db.close()

    def _hosts(self) -> None:
        named: dict[str, list[Removal]] = {}
        for removal in self._wanted:
            if removal["host"] is not None:
                named.setdefault(removal["host"], []).append(removal)
        if not named:
            return
        pairs = _file(self._facts.path("pair"))
        hosts = self._db.execute(_text("detached_hosts", pairs=pairs)).fetchall()
        found = [
            {"host": host, "removal_id": each["removal_id"], "prefix": each["prefix"]}
            for (host,) in hosts
            for above in _above(host)
            for each in named.get(above, ())
            if each["subdomains"] or above == host
        ]
        schema = {"host": pa.string(), "removal_id": pa.int64(), "prefix": pa.string()}
        self._db.register("named", pa.Table.from_pylist(found, pa.schema(schema.items())))
        links = self._db.execute(_text("detached_links", pairs=pairs)).fetchall()
        with self._connection.transaction():
            self._connection.execute("select mill.hold_removals()")
            self._connection.execute(
                query_text("archive", "note_links"),
                {
                    "samples": [sample_id for sample_id, _ in links],
                    "removals": [removal_id for _, removal_id in links],
                },
            )

    def _hashes(self) -> None:
        """By key only the samples that have it; a dHash has no key."""
        columns = {"md5": pa.binary(), "sha1": pa.binary(), "sha256": pa.binary()}
        schema = pa.schema([("removal_id", pa.int64()), *columns.items(), ("dhash", pa.int64())])
        by_key = [r for r in self._wanted if any(r[name] for name in HASHES)]
        by_dhash = [r for r in self._wanted if r["dhash"] is not None]
        chosen = pa.table({"sample_id": pa.array(self._keyed, pa.int64())})
        self._db.register("keyed", chosen)
        some = "d.sample_id in (select sample_id from keyed)"
        for removals, condition in ((by_key if self._keyed else [], some), (by_dhash, "true")):
            if not removals:
                continue
            given = [{name: r[name] for name in schema.names} for r in removals]
            self._db.register("named", pa.Table.from_pylist(given, schema))
            downloads = _file(self._facts.path("download"))
            query = _text("detached_images", downloads=downloads, some=condition)
            self._note(self._db.execute(query).fetchall())

    def _pdqs(self) -> None:
        named = [r for r in self._wanted if r["pdq"] is not None]
        if not named:
            return
        index = PdqIndex([r["pdq"] for r in named], [r["pdq_distance"] for r in named])
        path = self._facts.path("download")
        with file_system(path).open(path, "rb") as file:
            columns = ["sample_id", "submission_id", "pdq"]
            for part in pq.ParquetFile(file).iter_batches(READ, columns=columns):
                images = part.filter(part["pdq"].is_valid())
                near = index.near(images["pdq"].to_pylist())
                ids, submissions = images["sample_id"], images["submission_id"]
                self._note(
                    [
                        (ids[int(i)].as_py(), named[r]["removal_id"], submissions[int(i)].as_py())
                        for i, r in zip(near.images, near.removals, strict=True)
                    ]
                )

    def _note(self, found: list[tuple[int, int, int]]) -> None:
        """found: sample, removal and the download that gave its image."""
        if not found:
            return
        self._connection.execute(
            "select mill.note_images(%s::bigint[], %s::integer[], %s::bigint[], %s::bigint[])",
            (
                [sample_id // POSITIONS for sample_id, _, _ in found],
                [sample_id % POSITIONS for sample_id, _, _ in found],
                [removal_id for _, removal_id, _ in found],
                [submission_id for _, _, submission_id in found],
            ),
        )


def _above(host: str) -> list[str]:
    """As mill.host_and_above: a.b.c gives a.b.c, b.c and c."""
    labels = host.split(".")
    return [".".join(labels[i:]) for i in range(len(labels))]


def _file(path: str) -> str:
    return f"read_parquet('{path.replace(chr(39), chr(39) * 2)}')"


def _text(name: str, **parts: str) -> str:
    return query_text("archive", name).format(**parts)
