"""Words of texts: which rows have all words of a query.

The commonest 64 words are a bit of each row; of the others the working copy has the positions of
their rows. docs/decisions/2026-11-27-the-copy-that-pages-read.md has the measurements.
"""

from typing import TYPE_CHECKING, Any

from pairmill.ops.errors import UserError
from pairmill.ops.web.explore.working_copy import words_sql

if TYPE_CHECKING:
    from pairmill.ops.web.explore.release_rows import OpenRelease

MOST_WORDS = 20


def text_condition(text: str, release: "OpenRelease") -> tuple[str, dict[str, Any], str]:
    """A condition on the rows of a release, its parameters, and the query for their positions where
    that needs no scan, else "". Raises UserError for a text without a word, or of too
    many."""
    place = release.at
    query = f"select word, hash(word) as key from (select unnest({words_sql('$text')}) as word)"
    keys = {row["word"]: row["key"] for row in place.duck.rows(query, {"text": text})}
    if not keys or len(keys) > MOST_WORDS:
        raise UserError(f"text: between 1 and {MOST_WORDS} words, of letters and digits")
    if place.copied is None:
        words = words_sql(release.shape.sql("text"))
        return f"list_has_all({words}, $words)", {"words": list(keys)}, ""
    common = f"select key, bit from {place.named('common')} where key in (select unnest($keys))"
    bits = {
        row["key"]: row["bit"] for row in place.duck.rows(common, {"keys": list(keys.values())})
    }
    parts, values = [], {}
    mask = sum(1 << bits[key] for key in keys.values() if key in bits)
    if mask:
        parts.append("_common & $bits::ubigint = $bits::ubigint")
        values["bits"] = mask
    rare = [key for key in keys.values() if key not in bits]
    having = f"select position from {place.named('word')} where key = $word"
    lists = ""
    if rare:
        # their lists are joined among themselves first: rows are joined with what is left alone
        lists = " intersect ".join(f"{having}{n}" for n in range(len(rare)))
        parts.append(f"_position in ({lists})")
        values |= {f"word{n}": key for n, key in enumerate(rare)}
    return " and ".join(parts), values, "" if mask else lists
