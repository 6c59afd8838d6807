"""Pages of data: crawls, models, releases, the archive, and the growth of tables and of the WAL."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from pairmill.ops.web.console.growth import Growth
from pairmill.ops.web.console.layout import Section, page, section
from pairmill.ops.web.console.readings import readings_of
from pairmill.ops.web.console.visitors import Visitor

CRAWLS = (
    ("crawl", "Crawl", "text"), ("wat_files", "WAT files", "counts"),
    ("records", "Records", "number"), ("links", "Links", "number"),
    ("duplicates", "Duplicates", "number"), ("pairs", "Pairs", "number"),
)  # fmt: skip
MODELS = (
    ("name", "Model", "text"), ("kind", "Kind", "text"), ("base", "Of", "text"),
    ("dims", "Dims", "number"), ("digest", "Digest", "text"), ("revision", "Revision", "text"),
    ("licence", "Licence", "text"), ("active_since", "Since", "ago"),
    ("retired_at", "Retired", "ago"), ("is_default", "Default", "yes"),
)  # fmt: skip
RELEASES = (
    ("name", "Release", "text"), ("version", "Version", "number"), ("built_at", "Built", "ago"),
    ("built_by", "By", "text"), ("candidates", "Candidates", "number"), ("kept", "Kept", "number"),
    ("share", "Share", "percent"), ("is_newest", "Newest", "yes"),
)  # fmt: skip
ARCHIVE = (
    ("first_batch", "From batch", "number"), ("last_batch", "To", "number"),
    ("generation", "Generation", "number"), ("rows", "Rows", "number"), ("bytes", "Bytes", "size"),
    ("folder", "Folder", "text"), ("archived_at", "Archived", "ago"),
    ("detached_at", "Detached", "ago"),
)  # fmt: skip
PARTITIONS = (
    ("partition", "Partition", "text"), ("bounds", "Bounds", "text"), ("bytes", "Bytes", "size"),
    ("rows", "Rows, about", "number"),
)  # fmt: skip
SIZES = (
    ("table", "Table", "text"), ("partitions", "Partitions", "number"), ("bytes", "Bytes", "size"),
    ("grown", "Grown", "size"), ("live_rows", "Rows, about", "number"),
    ("dead_rows", "Dead rows", "number"), ("last_autovacuum", "Last vacuum", "ago"),
)  # fmt: skip
ADD = "`pairmill crawl add` and `pairmill wat add` queue more; `pairmill wat list` has the files."


def data(request: Request, visitor: Visitor, form: Any) -> Response:
    """What is worked on, by which models, and what came out."""
    r = readings_of(request)
    return page(
        request, visitor, "sections", title="Data",
        lead="Crawls, models, releases and the archive.", sections=[
            section("Crawls and files", CRAWLS, r.kept("crawls"), "No WAT file is known.", ADD),
            section("Models and taggers", MODELS, r.kept("models"),
                    "No models: `pairmill model add`."),
            section("Releases", RELEASES, r.kept("releases"), "No release was recorded."),
            section("Archive", ARCHIVE, r.kept("archive"), "No partition is archived.",
                    "`pairmill archive run` archives what is finished."),
        ],
    )  # fmt: skip


def storage(request: Request, visitor: Visitor, form: Any) -> Response:
    """Tables and the WAL, and how they grow."""
    r = readings_of(request)
    growth: Growth = request.app.state.growth
    samples = list(growth.samples)
    sizes = r.kept("sizes")
    before = samples[0].tables if samples else {}
    rows = [
        row | {"grown": row["bytes"] - before.get(row["table"], row["bytes"])} for row in sizes.rows
    ]
    since = f"Growth since {samples[0].at:%Y-%m-%d %H:%M} UTC." if samples else ""
    return page(
        request, visitor, "storage", samples=samples, rates=growth.rates(),
        sizes=Section("Tables", SIZES, rows, "", sizes.trouble, since, sizes.age),
        partitions=section("Partitions", PARTITIONS, r.kept("partitions"), "None has rows."),
    )  # fmt: skip
