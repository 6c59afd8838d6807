"""One line, end to end and in a few seconds: a WAT file becomes a release."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pairmill.ops.demo import model
from pairmill.ops.demo.serve import site_answers
from pairmill.ops.demo.site import DemoSite, build
from pairmill.ops.demo.wat import write_wat
from pairmill.schema.outcomes import Outcome
from support.database import Database
from support.line import Line, Web


@pytest.mark.quick
def test_a_wat_file_becomes_a_release(db: Database, line: Line, tmp_path: Path) -> None:
    """In this process are what needs torch, which is imported once, and the release."""
    whole = build()
    site = DemoSite(pages=whole.pages[:1] + whole.pages[-1:], files=whole.files)
    wat, out = tmp_path / "site.wat.gz", tmp_path / "release"
    with wat.open("wb") as file:
        write_wat(site.pages, file)
    options = ("--model", str(model.PATH))
    line.pairmill("model", "add", *options, "--name", "pairmill-demo")
    line.pairmill("wat", "add", str(wat))
    with Web(site_answers(site)).running() as web:
        line.environment |= web.environment
        with line.draining("steward", "extract", "download"):
            scored = line.here("work", "score", "--drain", *options)
    assert scored.returncode == 0, scored.stderr

    fates = {link.url: link.fate for link in site.links if isinstance(link.fate, Outcome)}
    fetched = Counter(fate for fate in fates.values())
    assert fetched[Outcome.SUCCESS] >= 10
    assert dict(db.rows("select outcome, count(*) from mill.download group by 1")) == fetched
    assert db.rows("select outcome, count(*) from mill.score group by 1") == [
        (0, fetched[Outcome.SUCCESS])
    ]
    told = line.pairmill("release", "build", "demo", "--out", str(out), "--json")
    kept = pq.read_table(out / "part-00000.parquet")["URL"].to_pylist()
    assert json.loads(told)["kept"] == len(kept) >= 5
    assert set(kept) <= {link.url for link in site.links if link.matching}
