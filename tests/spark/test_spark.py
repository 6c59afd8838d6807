"""Spark beside DuckDB over the same facts: `make spark-test` installs pyspark, and needs a Java of 17 or newer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pairmill.ops.archive.facts import Facts
from support.built_release import EVERYTHING, build_release, selection_of, some_facts


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return some_facts(tmp_path_factory.mktemp("facts"))


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    from pairmill.ops.release.engine_spark import Spark

    # interpreted, by the quick compiler: a query takes less time than the compilation of its code
    engine = Spark(
        "local[1]",
        {
            "spark.sql.shuffle.partitions": "1",
            "spark.default.parallelism": "1",
            "spark.sql.codegen.wholeStage": "false",
            "spark.sql.codegen.factoryMode": "NO_CODEGEN",
            "spark.sql.adaptive.enabled": "false",
            "spark.driver.memory": "512m",
            "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        },
    )
    yield engine
    engine.close()


def test_spark_gives_the_same_bytes(facts: Facts, tmp_path: Path, spark: Any) -> None:
    """Would catch: a condition that another engine reads otherwise: division, NULL, regular
    expressions, float32; and an order of its own."""
    chosen = selection_of("laion-400m", (7,), **EVERYTHING)
    by_duckdb, files, recorded = build_release(chosen, [facts], tmp_path / "duckdb")
    by_spark, same_files, same = build_release(chosen, [facts], tmp_path / "spark", engine=spark)
    assert files == same_files
    assert recorded == same
    assert by_duckdb.thresholds == by_spark.thresholds
    assert by_duckdb.decisions.excluded == by_spark.decisions.excluded
    # else the test would show nothing
    reasons = {"text_too_short", "aspect", "punsafe", "similarity", "top_fraction", "too_large"}
    assert reasons <= by_duckdb.decisions.excluded.keys()
    assert by_duckdb.decisions.kept > 50
