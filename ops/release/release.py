"""Releases: the pairs that a recipe keeps, as Parquet shards that anybody can check.

The same recipe on the same state of the database gives the same bytes, wherever the rows are: in
the archive or in the database. Facts are of one snapshot, and what must go is of another, at the
end; the order is that of SAMPLE_ID, and nothing is of the clock.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa

from pairmill import __version__
from pairmill.ops.admin.removal_sources import require_removals
from pairmill.ops.errors import UserError
from pairmill.ops.files import atomic_folder, file_entries, require_free
from pairmill.ops.release import state, unfinished
from pairmill.ops.release.annotators import of_recipe
from pairmill.ops.release.build import Build, Keep, Stages, unseen
from pairmill.ops.release.cover import public_version
from pairmill.ops.release.decisions import Decisions
from pairmill.ops.release.engine import DuckDb, Engine
from pairmill.ops.release.folder import write_manifest
from pairmill.ops.release.kept_pool import Pool
from pairmill.ops.release.layouts import layout
from pairmill.ops.release.manifest import Manifest
from pairmill.ops.release.recipe import Recipe
from pairmill.ops.release.record import ReleaseRecord, require_writable
from pairmill.ops.release.release_files import SHARD_ROWS
from pairmill.ops.release.selection import Model, select
from pairmill.ops.release.statistics import group_sizes
from pairmill.ops.release.unfinished import Unfinished
from pairmill.ops.release.work import work_folder

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class How:
    """How a release is built; none of it changes a row.

    work: a folder for what is between the passes, kept when a build is cut off, so that the next
    one goes on; None: one beside the release, which is thrown away. engine: duckdb, or spark, of
    which ``master`` is the address (local[2], spark://host:7077). memory: of DuckDB, a size like
    8GB; None: four fifths of the machine's. threads: None: all cores. stages: is told the pass,
    and what of it is done and to do. published: as in the manifest.
    """

    work: Path | None = None
    engine: str = "duckdb"
    master: str = "local[*]"
    memory: str | None = None
    threads: int | None = None
    stages: Stages = unseen
    published: dict[str, str] = field(default_factory=dict)


BY_DEFAULT = How()


def build(
    connection: Connection,
    recipe: Recipe,
    out: Path,
    *,
    how: How = BY_DEFAULT,
    progress: Callable[[int, int], None] = lambda done, total: None,
    shard_rows: int = SHARD_ROWS,
    record: bool = True,
    strict: bool = False,
) -> Manifest:
    """Write a release into ``out``, a folder that does not exist or is empty, and record in the
    database what it decided of every pair, unless ``record`` is false.

    progress is called with (rows written, rows to write). Everything is written beside ``out`` and
    renamed at the end; the record is committed after that. So an interruption leaves nothing half
    done, and no record is of a folder that never was.
    Raises UserError if ``out`` holds something, if the database lacks the recipe's model or a list
    of removals that the recipe requires, if kept and left out are not the candidates, or, where it
    is ``strict``, if there is work that the release would not see.
    """
    require_free(out)
    done = False
    try:
        with (
            work_folder(how.work, out) as work,
            _passes(connection, recipe, how, work, strict, record) as made,
            _snapshot(connection),
        ):
            with atomic_folder(out) as half:
                manifest = made.write(half, progress, shard_rows, record)
            done = True
    except psycopg.OperationalError as error:
        if not done:
            raise
        raise UserError(
            f"the release in {out} is whole, but the database was lost before it kept the record:"
            f" build it again for one ({error})"
        ) from None
    return manifest


def rehearse(
    connection: Connection, recipe: Recipe, how: How = BY_DEFAULT
) -> tuple[Decisions, Unfinished]:
    """What a release would keep and leave out, and what is not done yet; nothing is kept of it, but
    what is in the folder ``how.work``."""
    with (
        tempfile.TemporaryDirectory(prefix="pairmill-release-") as beside,
        work_folder(how.work, Path(beside) / "dry-run", keep=True) as work,
        _passes(connection, recipe, how, work, strict=False, record=False) as made,
        _snapshot(connection),
    ):
        return made.rehearse()


@contextmanager
def _snapshot(connection: Connection) -> Iterator[None]:
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read")
        yield


@dataclass
class _Passes:
    """The passes over facts, done; what must go is settled in the transaction of the caller."""

    connection: Connection
    made: Build
    pool: Pool
    how: How
    unfinished: Unfinished
    before: state.Removed

    def rehearse(self) -> tuple[Decisions, Unfinished]:
        self._settle()
        self.made.write(self.pool, None, shard_rows=SHARD_ROWS)
        decisions = self.made.decisions
        return decisions, unfinished.with_pairs(self.unfinished, decisions)

    def write(
        self, folder: Path, progress: Callable[[int, int], None], shard_rows: int, record: bool
    ) -> Manifest:
        recipe, made = self.made.selection.recipe, self.made
        self._settle()
        kept_as = ReleaseRecord(self.connection, recipe) if record else None
        keep: Keep = kept_as.add if kept_as else lambda of_batch: None
        files = made.write(self.pool, folder, shard_rows=shard_rows, keep=keep, progress=progress)
        schema = layout(recipe.layout).schema(recipe)
        manifest = self._manifest(folder, files, schema)
        made.stages("cards", 0, 1)
        how = self.how
        write_manifest(folder, manifest, schema, memory=how.memory, threads=how.threads)
        made.stages("cards", 1, 1)
        if kept_as:
            kept_as.end(manifest, made.decisions, folder)
        return manifest

    def _settle(self) -> None:
        require_removals(self.connection, self.made.selection.recipe)
        self.made.stages("removals", 0, 1)
        self.pool.settle(state.removed(self.connection).since(self.before))
        self.made.stages("removals", 1, 1)

    def _manifest(self, folder: Path, files: list[tuple[Path, int]], schema: pa.Schema) -> Manifest:
        made = self.made
        recipe, decisions, selection = made.selection.recipe, made.decisions, made.selection
        other = selection.multilingual_model
        return Manifest(
            recipe=recipe.as_dict(),
            model=_named(selection.model) if selection.model else _named(NO_MODEL),
            multilingual_model=_named(other) if other else None,
            taggers={
                column: {key: tagger[key] for key in ("name", "digest", "kind", "licence")}
                for column, tagger in zip(recipe.tags, selection.taggers, strict=True)
            },
            candidates=decisions.candidates,
            kept=decisions.kept,
            excluded=dict(sorted(decisions.excluded.items())),
            kept_by_language=dict(sorted(decisions.kept_by_language.items())),
            removals=public_version(self.connection),
            unfinished=unfinished.with_pairs(self.unfinished, decisions),
            columns={f.name: str(f.type) for f in schema},
            files=file_entries(folder, files),
            written_by={"pairmill": __version__, "pyarrow": pa.__version__},
            layout=recipe.layout,
            engine=self.how.engine,
            thresholds=made.thresholds,
            duplicates=[finding.as_dict() for finding in self.pool.findings],
            duplicate_groups=group_sizes(self.pool.duck.db),
            published=self.how.published,
        )


NO_MODEL: Model = {"name": "", "pretrained": "", "digest": ""}


def _named(model: Model) -> dict[str, Any]:
    return {key: model[key] for key in ("name", "pretrained", "digest")}


@contextmanager
def _passes(
    connection: Connection, recipe: Recipe, how: How, work: Path, strict: bool, record: bool
) -> Iterator[_Passes]:
    with _snapshot(connection):
        if record:
            require_writable(connection)
        require_removals(connection, recipe)
        selection = select(connection, recipe)
        waiting = unfinished.of_tasks(connection, selection)
        if strict and unfinished.has_work(waiting):
            raise UserError(
                f"not built, since work is not done: {unfinished.sentence(waiting)}; without"
                " --strict the release has what is done"
            )
        images = any("image" in each.needs for each in of_recipe(recipe, selection))
        facts = state.all_facts(
            connection,
            work / "live",
            model_ids=selection.model_ids(),
            embeddings=images or bool(recipe.dedupe and recipe.dedupe.needs_embeddings),
            progress=lambda done, total: how.stages("facts", done, total),
        )
        before = state.removed(connection)
    duck = DuckDb(work / "spill", how.memory, how.threads)
    engine: Engine = duck
    try:
        if how.engine == "spark":
            from pairmill.ops.release.engine_spark import Spark

            engine = Spark(how.master)
        made = Build(selection, facts, work, engine, duck, how.stages)
        pool = made.pool()
        if recipe.dedupe:
            pool.remove(before)
            model_id = selection.model["model_id"] if selection.model else None
            pool.find_duplicates(
                recipe.dedupe, model_id, lambda done, total: how.stages("duplicates", done, total)
            )
        yield _Passes(connection, made, pool, how, waiting, before)
    finally:
        if engine is not duck:
            engine.close()
        duck.close()


# The columns of a release by default.
SCHEMA = layout("pairmill").schema(Recipe(name="", version=1, description="", licence=""))
