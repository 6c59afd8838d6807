"""A real PostgreSQL for tests, and short ways to bring a database into a state."""

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import repeat
from typing import Any
from uuid import UUID

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from pairmill import migrations
from pairmill.schema.create import create
from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.calls import DownloadQueue, Outcomes
from pairmill.workers.extract.calls import ExtractQueue
from pairmill.workers.queue import Claim, Queue
from pairmill.workers.score.calls import ScoreQueue
from pairmill.workers.steward.calls import StewardQueue

DIMS = 4
QUEUES: dict[str, type[Queue]] = {
    "extract": ExtractQueue, "download": DownloadQueue, "score": ScoreQueue, "steward": StewardQueue,
}  # fmt: skip
PREFIX = 40  # so much of a database's name its group roles carry: schema/sql/roles.sql


def key(data: str) -> UUID:
    return UUID(bytes=hashlib.md5(data.encode(), usedforsecurity=False).digest())


class Database:
    """A database of its own, with the schema in it; ``admin`` is a superuser's connection."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.admin = psycopg.connect(dsn, autocommit=True)
        self._queues: dict[str, tuple[Queue, int]] = {}
        self._logins = 0

    def group(self, kind: str) -> str:
        """The name of a group role, or of the owner."""
        return f"{self.admin.info.dbname[:PREFIX]}_{kind}"

    def value(self, query: str, *arguments: Any) -> Any:
        row = self.admin.execute(query, arguments).fetchone()
        return row[0] if row else None

    def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        return self.admin.execute(query, arguments).fetchall()

    def login(self, kind: str, name: str | None = None, *, checked: bool = False) -> str:
        """Make a worker of this kind and return its DSN. Not ``checked``: an admin vouches for it,
        so that nobody repeats what it downloads."""
        self._logins += 1
        login, password = f"t_{uuid.uuid4().hex[:12]}", "secret"
        self.admin.execute(
            "select mill.add_worker(%s, %s, %s, %s)",
            (login, name or f"{kind}-{self._logins}", kind, password),
        )
        if not checked:
            self.admin.execute("update mill.worker set streak = null where login = %s", (login,))
        return make_conninfo(self.dsn, user=login, password=password)

    def queue(self, kind: str, name: str | None = None) -> tuple[Any, int]:
        """A worker's queue and its instance number; the same for every call without a name."""
        label = name or kind
        if label not in self._queues:
            queue = QUEUES.get(kind, Queue)(self.login(kind, name))
            self._queues[label] = queue, queue.register().instance_id
        return self._queues[label]

    def claim(self, kind: str, name: str | None = None, digest: str | None = None) -> Claim | None:
        queue, instance = self.queue(kind, name)
        return queue.claim(instance, digest)

    def accept_all(self) -> list[tuple[int, str, int, str | None]]:
        steward, _ = self.queue("steward")
        accepted = []
        while answer := steward.accept_next():
            accepted.append(answer)
        return accepted

    def add_wat(self, location: str = "a.wat.gz") -> None:
        self.admin.execute("select mill.add_wat(null, %s)", ([location],))

    def extract(
        self,
        urls: Sequence[str],
        location: str = "a.wat.gz",
        texts: str = "a text",
        pages: Sequence[str] = (),
    ) -> None:
        """Add a WAT file and have it extracted and accepted, with these links. pages: the address
        of each one's page; equal ones are one page."""
        self.add_wat(location)
        claim = self.claim("extract")
        assert claim is not None
        queue, _ = self.queue("extract")
        numbers = {page: number for number, page in enumerate(dict.fromkeys(pages))}
        queue.copy_pages([page_row(claim.lease_id, n, page) for page, n in numbers.items()])
        rows = pair_rows(claim.lease_id, urls, texts, [numbers[page] for page in pages])
        queue.copy_pairs(rows)
        queue.submit_extract(
            claim.lease_id, len(urls), [("image", "links", "", len(urls)), ("", "records", "", 1)]
        )
        assert [a[3] for a in self.accept_all()] == [None]

    def smuggle_pairs(self, lease_id: int, urls: Sequence[str]) -> None:
        """Rows in the name of the lease's holder that no function would take from it now."""
        login = self.value(
            "select login from mill.worker join mill.instance using (worker_id)"
            " join mill.lease using (instance_id) where lease_id = %s",
            lease_id,
        )
        columns = "lease_id, ordinal, url_key, url, text, language, language_probability, license, link_kind"
        for row in pair_rows(lease_id, urls):
            self.admin.execute(
                f"insert into inbox.pair ({columns}, worker)"
                " values (%s, %s, %s::uuid, %s, %s, %s, %s, %s, %s, %s)",
                (*row[:2], UUID(bytes=row[2]), *row[3:9], login),
            )

    def close_batches(self) -> int:
        return self.queue("steward")[0].maintain("close_batches")

    def download(self, outcome: Outcome = Outcome.SUCCESS, thumbnail: bytes = b"jpeg") -> Claim:
        """Claim a download task and submit, complete and accept it with one outcome for all."""
        claim = self.claim("download")
        assert claim is not None
        queue, _ = self.queue("download")
        positions = [n for n, _ in queue.urls(claim.lease_id)]
        queue.submit_download(claim.lease_id, 0, outcomes(positions, outcome, thumbnail))
        queue.complete(claim.lease_id)
        self.accept_all()
        return claim

    def add_model(self, digest: str = "d1") -> int:
        row = self.admin.execute(
            "select * from mill.add_model(%s, '', %s, %s)", ("model-" + digest, digest, DIMS)
        ).fetchone()
        assert row is not None
        return int(row[0])

    def add_tagger(
        self,
        base: str = "d1",
        kind: str = "head",
        digest: str = "t1",
        labels: list[str] | None = None,
    ) -> int:
        row = self.admin.execute(
            "select model_id from mill.add_model(%s, '', %s, %s, %s, (select model_id from mill.model where digest = %s), %s,"
            " p_weights => %s)",
            (
                f"tagger-{digest}",
                digest,
                DIMS,
                kind,
                base,
                labels,
                b"weights" if kind != "pixels" else None,
            ),
        ).fetchone()
        assert row is not None
        return int(row[0])

    def score(self, similarity: float = 0.5, digest: str = "d1") -> Claim:
        """Claim a score task and submit, complete and accept it with one similarity for all."""
        claim = self.claim("score", digest=digest)
        assert claim is not None
        queue, _ = self.queue("score")
        read = queue.thumbnails(claim.lease_id, 0, 20_000)
        assert len(read) == claim.payload["count"]
        queue.copy_scores(score_rows(claim.lease_id, 0, [row[0] for row in read], similarity))
        queue.submit_score(claim.lease_id, 0, len(read))
        queue.complete(claim.lease_id)
        self.accept_all()
        return claim

    def close(self) -> None:
        for queue, _ in self._queues.values():
            queue.close()
        self.admin.close()


CRAWLED = datetime(2024, 5, 1, 12, tzinfo=UTC)


def page_row(
    lease_id: int, page: int, url: str | None, refusal: tuple[str | None, str | None] = (None, None)
) -> tuple[Any, ...]:
    """refusal: signal and value of the page's opt-out."""
    return (lease_id, page, url, CRAWLED, *refusal)


def pair_rows(
    lease_id: int, urls: Sequence[str], text: str = "a text", pages: Sequence[int] = ()
) -> list[tuple[Any, ...]]:
    """pages: the number of each one's page; else they have none."""
    return [
        (lease_id, i, key(u).bytes, u, text, "en", 0.9, None, "image", page)
        for i, (u, page) in enumerate(zip(urls, pages or repeat(None), strict=False))
    ]


def score_rows(
    lease_id: int, part: int, positions: Sequence[int], similarity: float = 0.5
) -> list[tuple[Any, ...]]:
    vector = b"\x00\x3c" * DIMS
    return [(lease_id, part, n, 0, similarity, vector, vector, 5) for n in positions]


def outcomes(
    positions: Sequence[int], outcome: Outcome = Outcome.SUCCESS, thumbnail: bytes = b"jpeg"
) -> Outcomes:
    """The columns of a submission in which every position ended alike."""
    if outcome is not Outcome.SUCCESS:
        return outcomes_of(positions, [outcome] * len(positions))
    found = [hashlib.sha256(str(n).encode()).digest() for n in positions]
    md5 = [key(str(n)) for n in positions]
    return replace(outcomes_of(positions, found, thumbnail), md5=md5)


def outcomes_of(
    positions: Sequence[int], found: Sequence[bytes | Outcome], thumbnail: bytes = b"jpeg"
) -> Outcomes:
    """The columns of a submission: of each position the 32 bytes of its image's sha256, or how it
    failed. md5, SHA-1 and dHash are the first of those bytes, PDQ is all of them."""
    images = [image if isinstance(image, bytes) else None for image in found]
    good = [n for n, image in zip(positions, images, strict=True) if image]
    return Outcomes(
        positions=list(positions),
        outcome=[0 if isinstance(each, bytes) else int(each) for each in found],
        http_status=[200] * len(found),
        sizes=[6000 if image else None for image in images],
        width=[640 if image else None for image in images],
        height=[480 if image else None for image in images],
        md5=[UUID(bytes=image[:16]) if image else None for image in images],
        sha1=[image[:20] if image else None for image in images],
        sha256=list(images),
        dhash=[int.from_bytes(image[:8], signed=True) if image else None for image in images],
        pdq=list(images),
        thumbnail_positions=good,
        thumbnails=[thumbnail] * len(good),
    )


@contextmanager
def empty_database(server: str, name: str | None = None) -> Iterator[str]:
    """A new database on the server; dropped afterwards with the roles that carry its name."""
    name = name or f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"create database {name}")
        try:
            yield make_conninfo(server, dbname=name)
        finally:
            drop_database(admin, name)


def drop_database(admin: psycopg.Connection[Any], name: str) -> None:
    """Drop a database, the roles that carry its whole name, and the logins in its group roles."""
    group, ours = f"{name[:PREFIX]}_%".replace("_", "\\_"), f"{name}_%".replace("_", "\\_")
    # what others were granted goes before those who granted it
    roles = admin.execute(
        "select m.rolname, 0 from pg_roles g"
        " join pg_auth_members a on a.roleid = g.oid join pg_roles m on m.oid = a.member"
        " where g.rolname like %(group)s and m.rolname not like %(group)s and not m.rolsuper"
        " union select rolname, 1 + rolcanlogin::int from pg_roles where rolname like %(ours)s"
        " order by 2",
        {"group": group, "ours": ours},
    ).fetchall()
    admin.execute(f"drop database {name} with (force)")
    for role, _ in roles:
        admin.execute(f'drop owned by "{role}"')  # its rights on the server's settings
        admin.execute(f'drop role "{role}"')


def make_schema(dsn: str) -> None:
    """The schema, made directly."""
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(dsn), poolclass=NullPool
    )
    with engine.begin() as connection:
        create(connection)


def say_migrated(admin: psycopg.Connection[Any]) -> None:
    """What the migrations leave behind, which the command asks for."""
    admin.execute("create table mill.migration (version_num varchar(32) not null)")
    admin.execute("insert into mill.migration values (%s)", (migrations.revisions()[-1],))
    (owner,) = admin.execute(
        "select nspowner::regrole::text from pg_namespace where nspname = 'mill'"
    ).fetchone() or ("",)
    admin.execute(f"alter table mill.migration owner to {owner}")


@contextmanager
def new_database(server: str) -> Iterator[Database]:
    """A database with the schema in it, made directly."""
    with empty_database(server) as dsn:
        make_schema(dsn)
        database = Database(dsn)
        try:
            yield database
        finally:
            database.close()
