"""Texts: one key for what differs in NFKC, case and white space; bands for a wanted threshold."""

import unicodedata
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

PERMUTATIONS = 64


def folded(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Texts after NFKC, case folding, and white space as single spaces; null for null."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    ascii_only = pc.string_is_ascii(texts)
    plain = pc.utf8_lower(texts)
    if pc.all(ascii_only).as_py() is False:
        # pyarrow has NFKC but no case folding: ß and ss, ς and σ
        others = pc.utf8_normalize(texts.filter(pc.invert(ascii_only)), "NFKC").to_pylist()
        again = [unicodedata.normalize("NFKC", t.casefold()) for t in others]
        plain = pc.replace_with_mask(
            plain, pc.fill_null(pc.invert(ascii_only), False), pa.array(again, plain.type)
        )
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(plain, r"\s+", " "))


def register(db: duckdb.DuckDBPyConnection) -> None:
    """Give the connection the function ``folded_text``."""
    known = db.execute(
        "SELECT 1 FROM duckdb_functions() WHERE function_name = 'folded_text'"
    ).fetchall()
    if not known:
        create: Any = db.create_function  # its types know no function of arrays
        create("folded_text", folded, ["VARCHAR"], "VARCHAR", type="arrow")


def key(column: str, min_length: int) -> str:
    """Of DuckDB: a text's key; NULL for one of fewer characters."""
    return f"CASE WHEN length({column}) >= {min_length} THEN md5_number(folded_text({column})) END"


def bands_of(threshold: float, permutations: int = PERMUTATIONS) -> tuple[int, int]:
    """Bands, and rows of a band, for a Jaccard similarity: of those that find 95 % of the pairs at
    the threshold the one that proposes the fewest below it (the area under the curve)."""
    best = (permutations, 1)
    least = 2.0
    below = np.linspace(0, threshold, 200)
    for rows in range(1, permutations + 1):
        bands = permutations // rows
        if chance(threshold, bands, rows) < 0.95:
            continue
        area = float(np.trapezoid(chance(below, bands, rows), below))
        if area < least:
            best, least = (bands, rows), area
    return best


def chance(similarity: Any, bands: int, rows: int) -> Any:
    """The chance that two texts of a Jaccard similarity are compared: 1 - (1 - s^rows)^bands."""
    return 1 - (1 - similarity**rows) ** bands


def curve(threshold: float) -> list[dict[str, float]]:
    """The chance by similarity, in steps of 0.05 from 0.3 up."""
    bands, rows = bands_of(threshold)
    return [
        {"jaccard": n / 20, "found": round(float(chance(n / 20, bands, rows)), 4)}
        for n in range(6, 21)
    ]
