"""A release's folder, read by each library that is installed here, Spark among them.

    python tests/suites/release_readers.py PATH

PATH: a release's folder. Spark (pip install pyspark, with Java) and `datasets` are too large, or too
slow to start, for the tests; what is not installed is said.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

DISAGREEMENTS: dict[str, str] = {}  # reader -> why it may fail


def _pyarrow(folder: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_table(folder).num_rows)


def _pandas(folder: Path) -> int:
    import pandas as pd

    return len(pd.read_parquet(folder))


def _polars(folder: Path) -> int:
    import polars as pl

    return pl.read_parquet(folder).height


def _duckdb(folder: Path) -> int:
    import duckdb

    query = f"select count(*) from read_parquet('{folder}/**')"
    return int(duckdb.sql(query).fetchall()[0][0])


def _datasets(folder: Path) -> int:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import datasets

    with tempfile.TemporaryDirectory() as cache:
        return int(datasets.load_dataset(str(folder), cache_dir=cache)["train"].num_rows)


def _pyspark(folder: Path) -> int:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    with builder.getOrCreate() as session:
        return int(session.read.parquet(str(folder)).count())


READERS: dict[str, Callable[[Path], int]] = {
    "pyarrow": _pyarrow, "pandas": _pandas, "polars": _polars, "duckdb": _duckdb,
    "datasets": _datasets, "pyspark": _pyspark,
}  # fmt: skip


def main() -> int:
    folder = Path(sys.argv[1])
    from pairmill.ops.release.folder import read_release

    rows = read_release(folder).rows
    print(f"{folder}: {rows:,} rows")
    passed = tried = unlisted = 0
    for name, read in READERS.items():
        try:
            found: object = read(folder)
        except ModuleNotFoundError as error:
            print(f"  {name}: {error.name} is not installed")
            continue
        except Exception as error:
            found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        tried += 1
        passed += found == rows
        unlisted += found != rows and name not in DISAGREEMENTS
        reason = f" ({DISAGREEMENTS[name]})" if name in DISAGREEMENTS else ""
        print(f"  {name} {version(name)}: {found}{reason}")
    print(f"{passed}/{tried}")
    return int(unlisted > 0)


if __name__ == "__main__":
    raise SystemExit(main())
