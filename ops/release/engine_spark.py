"""Spark as the engine of a release's passes over facts: the same SQL, transpiled by sqlglot.

Spark reads what its executors can reach: with a cluster, facts and --work are on a file system that
they share.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlglot

from pairmill.ops.archive.facts import Facts
from pairmill.ops.errors import UserError, extra
from pairmill.ops.release.engine import Part, Table

# no page of its own, a clock that reads times as they are, and ANSI's errors in place of nulls
SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.sql.adaptive.enabled": "true",
}
LOCAL = {"spark.driver.host": "localhost", "spark.driver.bindAddress": "127.0.0.1"}


class Spark:
    """A Spark session for one build. master: its address, like local[2]."""

    def __init__(self, master: str, settings: Mapping[str, str] | None = None) -> None:
        """Raises UserError where pyspark or Java is not installed, or the master not reached."""
        with extra("spark"):
            import pyspark
            from pyspark.sql import SparkSession
        builder = SparkSession.builder.master(master).appName("pairmill release")
        local = LOCAL if master.startswith("local") else {}
        for key, value in (SETTINGS | local | dict(settings or {})).items():
            builder = builder.config(key, value)
        try:
            self.spark = builder.getOrCreate()
        except Exception as error:  # py4j's, Java's, or none at all
            raise UserError(
                f"Spark does not start at {master}: {str(error).splitlines()[0]}; is Java 17"
                " installed, and the master right?"
            ) from None
        self.spark.sparkContext.setLogLevel("ERROR")
        self.name = f"spark {pyspark.__version__}"

    def parts(self, facts: Facts) -> list[Part]:
        """The whole folder: Spark parts its files itself."""
        return [Part(facts, facts.first, facts.last)]

    def copy(
        self, query: str, relations: Mapping[str, Table], out: Path, *, ordered: bool = True
    ) -> None:
        found = self._run(query, relations)
        if ordered:
            found = found.orderBy("sample_id")
        self._try(lambda: found.write.mode("overwrite").parquet(str(out)))

    def rows(self, query: str, relations: Mapping[str, Table]) -> list[tuple[Any, ...]]:
        found = self._run(query, relations)
        return [tuple(row) for row in self._try(found.collect)]

    def _run(self, query: str, relations: Mapping[str, Table]) -> Any:
        for name, of in relations.items():
            made = (
                self.spark.sql(transpiled(of))
                if isinstance(of, str)
                else self._try(lambda paths=of: self._read(paths))
            )
            made.createOrReplaceTempView(name)
        return self._try(lambda: self.spark.sql(transpiled(query)))

    def _read(self, paths: Sequence[str]) -> Any:
        return self.spark.read.parquet(*paths)

    def _try(self, action: Any) -> Any:
        try:
            return action()
        except Exception as error:  # Py4JJavaError and PySpark's own
            said = next((line for line in str(error).splitlines() if line.strip()), "no reason")
            raise UserError(f"Spark cannot run a pass of the release: {said[:300]}") from error

    def close(self) -> None:
        self.spark.stop()


def transpiled(query: str) -> str:
    """A query of DuckDB's dialect in Spark's."""
    (text,) = sqlglot.transpile(query, read="duckdb", write="spark")
    return text
