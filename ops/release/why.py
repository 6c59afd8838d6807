"""Why a pair is in a release or not: what became of it stage by stage, what each recorded release
decided of it, and what a recipe would decide today."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import psycopg

from pairmill.ops.admin.removal_entries import parse
from pairmill.ops.archive import catalogue
from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text, rows
from pairmill.ops.release.decisions import KEPT, NONE_STAYS, duplicate_of
from pairmill.ops.release.one_pair import decide_one
from pairmill.ops.release.reasons import PairFacts, because
from pairmill.ops.release.recipe import Recipe
from pairmill.ops.release.record import find
from pairmill.ops.release.selection import select

BATCH_BITS = 14  # SAMPLE_ID = batch_id << 14 | n
NO_CANDIDATE = "no candidate"  # as why_releases.sql has it
UNTOLD = "a build alone can tell duplicates and the fraction of the pool"
# reasons that a build finds among all rows, and what they say of one that has no other reason today
AMONG_ALL = {
    "top_fraction": "its similarity is below that of the recipe's fraction of the pool then",
    "removed": "a removal named its URL, its image or one that it repeats, or it was a cover row",
}
# of a build these come after the fraction of the pool
AFTER_FRACTION = frozenset(
    ("not_in_subset", "personal_data", "keyword", "no_entity", "text_not_scored", "text_unsafe",
     "cluster")
)  # fmt: skip
NOT_RECORDED = (
    "not recorded: the pair was no candidate when this release was built, or came in later"
)


def ask(
    connection: psycopg.Connection,
    question: str,
    releases: Sequence[str] = (),
    recipe: Recipe | None = None,
) -> dict[str, Any]:
    """What is known of a URL or a SAMPLE_ID, in one snapshot.

    Returns asked, known, and of a URL that no pair has removals, dropped (counts of extraction)
    and files_to_extract. Of a pair: its facts (why.sql), scores (why_scores.sql) and releases: of
    each release_id, name, version, built_at, decision (kept, a reason, or null where it is not
    recorded), today (kept or a reason, by the same recipe) and because; a recipe's alone has no
    release_id, and today is null where only a build can tell it. Raises UserError for what is
    neither, for what is detached, and for a release or model that there is not.
    """
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        chosen = [r["release_id"] for r in find(connection, list(releases))] if releases else None
        place, unknown = _place(connection, question)
        if place is None:
            return {"asked": question, "known": False, **unknown}
        values = {"batch_id": place[0], "n": place[1], "chosen": chosen}
        pairs = _rows(connection, "why", values)
        if not pairs:
            for partition in catalogue.detached(connection, place[0], place[0]):
                raise UserError(
                    f"batches {partition.name} are archived and their rows are not here, those of"
                    f" {question} among them: `pairmill archive restore {partition.name}` brings"
                    " them back"
                )
            raise UserError(f"there is no pair with the SAMPLE_ID {question}")
        facts = PairFacts(pairs[0], _rows(connection, "why_scores", values))
        recorded = _rows(connection, "why_releases", values)
        # asked of a recipe alone, a record of another is no answer
        found = [] if recipe and not releases else [_told(connection, facts, r) for r in recorded]
        if recipe:
            today = _today(connection, facts, recipe)
            if today["today"] == KEPT and (recipe.top_fraction is not None or recipe.dedupe):
                today["because"] += f"; {UNTOLD}"
            found.append({"name": recipe.name, "version": recipe.version} | today)
    # that a row is a cover is written nowhere, as JSON is passed on
    pair = {key: value for key, value in facts.pair.items() if key != "is_covered"}
    return {"asked": question, "known": True, **pair, "scores": facts.scores, "releases": found}


def _rows(
    connection: psycopg.Connection, name: str, values: dict[str, Any]
) -> list[dict[str, Any]]:
    return rows(connection, query_text("release", name), **values)


def _place(
    connection: psycopg.Connection, question: str
) -> tuple[tuple[int, int] | None, dict[str, Any]]:
    """Batch and n of a SAMPLE_ID or a URL, in whatever spelling; or what is known of a URL that no
    pair has."""
    if question.isascii() and question.isdecimal():
        number = int(question)
        if number >= 1 << 63:
            raise UserError(f"{question} is no SAMPLE_ID: those have 64 bits")
        return (number >> BATCH_BITS, number & ((1 << BATCH_BITS) - 1)), {}
    if "://" not in question:
        raise UserError(f"{question!r} is neither a SAMPLE_ID nor a URL with http:// or https://")
    entry = parse(question)
    keys = [entry.md5, *(spelling.md5 for spelling in entry.spellings)]
    query = "select batch_id, n from mill.seen_url where url_key = any (%s) order by url_key = %s"
    row = connection.execute(f"{query} desc limit 1", (keys, entry.md5)).fetchone()
    if row:
        return (row[0], row[1]), {}
    (unknown,) = _rows(connection, "why_unknown", {"keys": keys, "url": entry.source})
    return None, {"url": entry.source} | unknown


def _told(
    connection: psycopg.Connection, facts: PairFacts, record: dict[str, Any]
) -> dict[str, Any]:
    recipe = msgspec.convert(record.pop("recipe"), Recipe)
    packed, methods = record.pop("duplicates"), record.pop("methods")
    decision = record["decision"]
    duplicate = duplicate_of(packed, facts.pair["n"]) if packed and decision != KEPT else None
    if duplicate:
        other, method = duplicate[0], methods[duplicate[1]]
        return record | {
            "duplicate_of": None if other == NONE_STAYS else other,
            "method": method,
            "today": decision,
            "because": _because_duplicate(connection, other, method),
        }
    try:
        today = _today(connection, facts, recipe)
    except UserError as problem:  # a model that is gone, say
        today = {"today": None, "because": str(problem)}
    if decision is None:
        return record | today | {"because": f"{NOT_RECORDED}; today: {today['because']}"}
    if decision in AMONG_ALL and today["today"] in {KEPT, *AFTER_FRACTION}:
        return record | {"today": None, "because": AMONG_ALL[decision]}
    if decision != today["today"]:
        today["because"] = f"since then it changed; today: {today['because']}"
    return record | today


def _because_duplicate(connection: psycopg.Connection, other: int, method: str) -> str:
    if other == NONE_STAYS:
        return "near an image of an evaluation set, which the recipe keeps out"
    found = _rows(connection, "why_other", {"batch_id": other >> BATCH_BITS,
                                            "n": other & ((1 << BATCH_BITS) - 1)})  # fmt: skip
    url = f" {found[0]['url']}," if found and found[0]["url"] else ""
    return f"duplicate of SAMPLE_ID {other},{url} by {method}"


def _today(connection: psycopg.Connection, facts: PairFacts, recipe: Recipe) -> dict[str, Any]:
    """What a recipe decides of the pair today, and why."""
    if facts.pair["withdrawn_because"] is not None:
        said = f"its extraction was withdrawn: {facts.pair['withdrawn_because']}"
        return {"today": NO_CANDIDATE, "because": said}
    if facts.pair["link_kind"] != "image":
        said = f"a link of kind {facts.pair['link_kind']}, and releases are of images"
        return {"today": NO_CANDIDATE, "because": said}
    selection = select(connection, recipe)
    reason, row = decide_one(connection, selection, facts.pair["sample_id"])
    if facts.pair["removal_id"] is not None or facts.pair["is_covered"]:
        reason = "removed"
    return {"today": reason or KEPT, "because": because(reason, facts, selection, row)}


def lines(told: dict[str, Any]) -> Iterator[str]:
    """What ``ask`` returned, for people: a line a stage and a release."""
    if not told["known"]:
        yield from _lines_unknown(told)
        return
    yield f"{told['url']}"
    yield f"sample {told['sample_id']}: {told['language']}, {told['text']!r}"
    page = f", page {told['page']}" if told["page"] else ""
    withdrawn = f"; withdrawn: {told['withdrawn_because']}" if told["withdrawn_because"] else ""
    yield f"extraction: from {told['wat']}{page}{withdrawn}"
    if told["removal_id"] is not None:
        why = f": {told['removed_because']}" if told["removed_because"] else ""
        yield f"removal: {told['removal_id']} names it{why}"
    yield f"download: {_download(told)}"
    for score in told["scores"] if told["outcome"] == "success" else ():
        value = "" if score["similarity"] is None else f", similarity {score['similarity']:.4f}"
        yield f"score: {score['model']}: {score['outcome'] or 'not scored yet'}{value}"
    for release in told["releases"]:
        yield _line(release)
    if not told["releases"]:
        yield "no release is recorded: --recipe NAME asks a recipe"


def _lines_unknown(told: dict[str, Any]) -> Iterator[str]:
    yield f"{told['url']} is not known: no pair has it"
    for removal in told["removals"] or ():
        why = f" ({removal['reason']})" if removal["reason"] else ""
        yield f"removal {removal['removal_id']} names it, and lets nothing in{why}"
    if told["files_to_extract"]:
        yield f"WAT files that are not extracted and may bring it: {told['files_to_extract']:,}"
    if told["dropped"]:
        counts = sorted(told["dropped"].items(), key=lambda item: (-item[1], item[0]))
        listed = ", ".join(f"{reason} {count:,}" for reason, count in counts)
        yield f"links dropped at extraction, of which only counts are kept: {listed}"


def _download(told: dict[str, Any]) -> str:
    if told["outcome"] is None:
        return "its batch is open" if told["in_open_batch"] else "not yet"
    if told["signal"] is not None:
        return f"opted_out: {told['signal']} of {told['source']} says {told['value']!r}"
    size = f", {told['bytes']:,} bytes, {told['width']} x {told['height']}" if told["bytes"] else ""
    status = f", HTTP {told['http_status']}" if told["http_status"] else ""
    return f"{told['outcome']} on attempt {told['attempt']}{status}{size}"


def _line(release: dict[str, Any]) -> str:
    if "release_id" not in release:
        verdict = release["today"]
        name = f"recipe {release['name']}, version {release['version']}, today"
    else:
        verdict = release["decision"]
        built = f"{release['built_at']:%Y-%m-%d %H:%M}, record {release['release_id']}"
        name = f"release {release['name']}, version {release['version']}, of {built}"
    if verdict is None:
        return f"{name}: {release['because']}"
    word = verdict if verdict in (KEPT, NO_CANDIDATE) else f"left out, {verdict}"
    return f"{name}: {word}: {release['because']}"
