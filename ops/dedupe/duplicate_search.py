"""All methods of a recipe's ``[dedupe]``, in order, over the rows of a release.

Each method runs over the rows that those before it left. What has been removed, or has an
evaluation set's image, takes all rows along that are the same image by URL, bytes or dHash; texts
and meaning alone condemn nobody, and are compared among the rest.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb

from pairmill.ops.archive.facts import Facts
from pairmill.ops.dedupe import decontaminate, minhash, near_images, semantic, tables
from pairmill.ops.dedupe.exact import equal, make_rows
from pairmill.ops.dedupe.spec import Dedupe
from pairmill.ops.dedupe.texts import bands_of
from pairmill.ops.errors import UserError

Progress = Callable[[int, int], None]  # parts done, parts
PARTS = 1000  # of a method
WORK = "dedupe_work"
SAME_IMAGE = ("url", "bytes", "url_text", "dhash")


@dataclass(frozen=True)
class DuplicateFinding:
    """What a method found, for the manifest. rows: that go. groups: rows that stay for them.
    recall, precision: of planted duplicates, by bench/dedupe.py; None where they are not measured,
    as for equality and for another radius. measured: on what, and by transform."""

    method: str
    rows: int
    groups: int
    parameters: dict[str, Any] = field(default_factory=dict)
    recall: float | None = None
    precision: float | None = None
    measured: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measured() -> dict[str, Any]:
    """Recall and precision by method, as bench/dedupe.py wrote them."""
    text = (files("pairmill.ops.dedupe") / "measured.json").read_text("utf-8")
    return dict(json.loads(text))


def find_duplicates(
    db: duckdb.DuckDBPyConnection,
    pool: str,
    spec: Dedupe,
    facts: Sequence[Facts],
    work: Path,
    *,
    model_id: int | None,
    progress: Progress = lambda done, total: None,
) -> list[DuplicateFinding]:
    """Make the tables ``duplicate`` (sample_id, of, method), ``duplicate_group`` (sample_id,
    representative) and ``contaminated`` (sample_id, evaluation, image) of a pool.

    pool: a relation (sample_id, url, text, sha256, dhash, width, height, similarity, removed), read
    once, and once more for near texts. work: a folder for a database file of ids and keys and a
    file of embeddings, both gone at the end. duplicate has a row for each that goes; of is the row
    that stays for it, NULL where none does (``decontamination``). duplicate_group has the groups of
    one image (by URL, bytes or dHash), also those with a removed row, which all go with it and are
    in no ``duplicate``; no groups by text or meaning.

    Raises UserError where embeddings are asked for and there is no model, or they cannot be read.
    """
    if spec.needs_embeddings and model_id is None:
        raise UserError("dedupe by a cosine needs a model: name one in the recipe")
    work.mkdir(parents=True, exist_ok=True)
    file = work / "dedupe.duckdb"
    _forget(file)  # of a build that was killed
    db.execute(f"ATTACH '{str(file).replace(chr(39), chr(39) * 2)}' AS {WORK}")
    try:
        return _Search(db, pool, spec, facts, work, model_id, progress).run()
    finally:
        db.execute(f"DETACH {WORK}")
        _forget(file)


def _forget(file: Path) -> None:
    for path in (file, file.with_name(f"{file.name}.wal")):
        path.unlink(missing_ok=True)


@dataclass
class _Search:
    db: duckdb.DuckDBPyConnection
    pool: str
    spec: Dedupe
    facts: Sequence[Facts]
    work: Path
    model_id: int | None
    progress: Progress
    rows: str = f"{WORK}.rows"
    found: str = f"{WORK}.found"

    def run(self) -> list[DuplicateFinding]:
        db, spec = self.db, self.spec
        db.execute(
            "CREATE OR REPLACE TABLE duplicate (sample_id BIGINT, of BIGINT, method VARCHAR)"
        )
        db.execute(
            "CREATE OR REPLACE TABLE contaminated"
            " (sample_id BIGINT, evaluation VARCHAR, image VARCHAR)"
        )
        make_rows(db, self.pool, spec, self.rows)
        self._require_embeddings()
        if spec.decontaminate:
            decontaminate.near(
                db, self.rows, spec, self.facts, self.model_id, self.found,
                self.of("decontamination"),
            )  # fmt: skip
            db.execute(f"INSERT INTO contaminated FROM {self.found}")
        for method in spec.methods:
            if method in SAME_IMAGE:
                self.by_image(method)
                self.accept(method)
        self.condemn()
        for method in spec.methods:
            if method in ("text", "near_text", "semantic"):
                self.by_content(method)
                self.accept(method)
        return self.finish()

    def _require_embeddings(self) -> None:
        """Of a pool without rows there are none, and none are needed."""
        if not self.spec.needs_embeddings:
            return
        there = any(each.has("embedding", self.model_id) for each in self.facts)
        if not there and tables.count(self.db, self.rows):
            raise UserError(
                "dedupe by a cosine needs the image embeddings of the recipe's model, and the facts"
                " have none: score with embeddings, or set dedupe.min_cosine, semantic_cosine and"
                " decontaminate_cosine to 0"
            )

    def of(self, method: str) -> Progress:
        """The progress within a method, as parts of all methods."""
        methods = self.spec.methods
        before = PARTS * methods.index(method)

        def within(done: int, total: int) -> None:
            self.progress(before + PARTS * done // max(total, 1), PARTS * len(methods))

        return within

    def by_image(self, method: str) -> None:
        if method == "dhash":
            near_images.near(
                self.db, self.rows, self.spec, self.facts, self.model_id, self.work, self.found,
                self.of(method),
            )  # fmt: skip
        else:
            self.of(method)(0, 1)
            equal(self.db, self.rows, f"key_{method}", self.found)
            if method != "bytes":  # a URL may have had two images: each removed one has neighbours
                self.db.execute(
                    f"DELETE FROM {self.found} WHERE sample_id IN"
                    f" (SELECT sample_id FROM {self.rows} WHERE removed)"
                )

    def by_content(self, method: str) -> None:
        spec = self.spec
        if method == "text":
            self.of(method)(0, 1)
            equal(self.db, self.rows, "key_text", self.found)
        elif method == "near_text":
            minhash.near_texts(
                self.db, self.pool, self.rows, spec.min_jaccard, self.found, self.of(method)
            )
        elif self.model_id is not None:
            semantic.near(
                self.db, self.rows, spec.semantic_cosine, spec.semantic_clusters, self.facts,
                self.model_id, self.work, self.found, self.of(method),
            )  # fmt: skip

    def accept(self, method: str) -> None:
        """Add what a method found; representatives that it took away have new ones."""
        db, found = self.db, self.found
        db.execute(
            f"UPDATE duplicate SET of = f.of FROM {found} f WHERE duplicate.of = f.sample_id"
        )
        db.execute(f"INSERT INTO duplicate SELECT sample_id, of, '{method}' FROM {found}")
        db.execute(f"DELETE FROM {self.rows} WHERE sample_id IN (SELECT sample_id FROM {found})")

    def condemn(self) -> None:
        """Take the groups of removed rows and of evaluation sets' images out of the rest."""
        db = self.db
        db.execute(
            "CREATE OR REPLACE TABLE duplicate_group AS"
            " SELECT sample_id, of AS representative FROM duplicate"
            " UNION SELECT of, of FROM duplicate"
        )
        # a removed row is the first of its group by rank
        db.execute(
            f"CREATE OR REPLACE TABLE {WORK}.lost AS SELECT sample_id, removed FROM {self.rows}"
            " WHERE removed OR sample_id IN (SELECT coalesce(d.of, c.sample_id) FROM contaminated c"
            " LEFT JOIN duplicate d USING (sample_id))"
        )
        db.execute(
            f"CREATE OR REPLACE TABLE {WORK}.evaluated AS SELECT sample_id FROM {WORK}.lost"
            " WHERE NOT removed UNION ALL SELECT d.sample_id FROM duplicate d"
            f" JOIN {WORK}.lost l ON l.sample_id = d.of AND NOT l.removed"
        )
        db.execute(f"DELETE FROM duplicate WHERE of IN (SELECT sample_id FROM {WORK}.lost)")
        db.execute(
            f"DELETE FROM {self.rows} WHERE sample_id IN (SELECT sample_id FROM {WORK}.lost)"
        )

    def finish(self) -> list[DuplicateFinding]:
        db = self.db
        db.execute(
            f"INSERT INTO duplicate SELECT sample_id, NULL, 'decontamination' FROM {WORK}.evaluated"
        )
        counted = {
            method: (rows, groups)
            for method, rows, groups in db.execute(
                "SELECT method, count(*), count(DISTINCT of) FROM duplicate GROUP BY method"
            ).fetchall()
        }
        return [self.finding(method, *counted.get(method, (0, 0))) for method in self.spec.methods]

    def finding(self, method: str, rows: int, groups: int) -> DuplicateFinding:
        known = measured().get(method, {})
        told = parameters(self.spec, method)
        alone = method == "dhash" and not told["min_cosine"]
        found = known.get("without_cosine", {}) if alone else known
        if any(
            known.get(key, told[key]) != told[key]
            for key in ("radius", "min_jaccard")
            if key in told
        ):
            found = {}  # measured with others
        return DuplicateFinding(
            method, rows, groups, told, found.get("recall"), found.get("precision"), known
        )


def parameters(spec: Dedupe, method: str) -> dict[str, Any]:
    """What decides a method, for the manifest."""
    common: dict[str, Any] = {"representative": spec.representative}
    if method == "dhash":
        return common | {
            "radius": spec.dhash_radius,
            "low_entropy": spec.low_entropy,
            "min_cosine": spec.min_cosine,
        }
    if method == "decontamination":
        return {
            "sets": {Path(given).name: decontaminate.digest(given) for given in spec.decontaminate},
            "radius": spec.decontaminate_radius,
            "min_cosine": spec.decontaminate_cosine,
        }
    if method == "text":
        return common | {"min_text_length": spec.min_text_length}
    if method == "near_text":
        bands, rows = bands_of(spec.min_jaccard)
        return common | {
            "min_jaccard": spec.min_jaccard,
            "min_text_length": spec.min_text_length,
            "bands": bands,
            "rows_of_a_band": rows,
        }
    if method == "semantic":
        return common | {"cosine": spec.semantic_cosine, "clusters": spec.semantic_clusters}
    return common
