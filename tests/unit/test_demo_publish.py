"""The demo's last steps, which an earlier run may have taken already."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pairmill.ops.demo.publish import TAKEN_DOWN, publish


@pytest.mark.parametrize(("url", "steps"), [(TAKEN_DOWN, 5), ("http://other.example/", 2)])
def test_a_second_run_has_nothing_to_take_down(tmp_path: Path, url: str, steps: int) -> None:
    """Would catch: a second `make demo` that ends with an error, since nothing must go."""
    release, called = tmp_path / "demo", list[str]()
    release.mkdir()
    pq.write_table(pa.table({"URL": [url]}), release / "part-00000.parquet")
    newest = publish(release, lambda *command: called.append(" ".join(command)), lambda step: None)
    assert len(called) == steps
    assert newest.name == ("demo-next" if url == TAKEN_DOWN else "demo")
