"""The line on a real crawl of 2008, with its images served again: the whole funnel, exactly."""

import json
from pathlib import Path

import pyarrow.parquet as pq

from pairmill.ops.demo import model
from pairmill.ops.demo.serve import warc_answers
from support.database import Database
from support.line import Line, Web
from support.shared_data import shared_file


def test_web_of_2008(db: Database, line: Line, tmp_path: Path) -> None:
    options = ("--model", str(model.PATH))
    line.pairmill("model", "add", *options, "--name", "pairmill-demo")
    line.pairmill("wat", "add", str(shared_file("wat/web-2008.wat.gz")))
    with Web(warc_answers(shared_file("warc/web-2008.warc.gz"))).running() as web:
        line.environment |= web.environment
        line.drain("steward", "extract", "download", "score", options={"score": options})

    status = line.status()
    assert status["records"] == 822
    assert status["links"] == 858
    assert status["dropped"] == {"no_text": 192, "file_type": 47, "text_too_short": 7}
    assert status["duplicates"] == 589
    assert sum(status["pairs"].values()) == 23
    assert status["fetched"] == {"opted_out": 11, "http_error": 2, "success": 10}
    assert status["scored"] == {"pairmill-demo": {"scored": 10}}
    assert status["bad_records"] == {}
    assert status["discarded"] == []

    out = tmp_path / "release"
    loose = ("--set", "min_similarity=-1", "--set", "languages=[]")
    manifest = json.loads(
        line.pairmill("release", "build", "demo", "--out", str(out), *loose, "--json")
    )
    assert manifest["candidates"] == 23
    assert manifest["excluded"] == {"download_failed": 13, "too_few_bytes": 4}
    assert manifest["kept"] == 6
    table = pq.read_table(out / "part-00000.parquet")
    assert table["SAMPLE_ID"].to_pylist() == sorted(table["SAMPLE_ID"].to_pylist())
    assert len(set(table["md5"].to_pylist())) == db.value(
        "select count(distinct md5) from report.pair where outcome = 'success' and bytes >= 5000"
    )
