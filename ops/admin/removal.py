"""Removals: URLs and images that no release may contain and no ingest may let in."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import urldefrag, urlsplit
from uuid import UUID

import psycopg

from pairmill.ops.errors import UserError


@dataclass(frozen=True)
class Report:
    """added: new entries; known: entries that were there before; matching_pairs: pairs in the
    database that the entries name."""

    added: int
    known: int
    matching_pairs: int


@dataclass(frozen=True)
class _Entry:
    source: str
    md5: UUID | None
    sha256: bytes | None


def read_entries(path: Path) -> list[str]:
    """One entry a line; empty lines and lines that begin with # are passed over.

    Raises UserError, naming the line, if one is neither a URL nor a hash.
    """
    entries = []
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            try:
                _parse(entry)
            except UserError as problem:
                raise UserError(f"{path}, line {number}: {problem}; nothing was added") from None
            entries.append(entry)
    return entries


def add(
    connection: psycopg.Connection, entries: Iterable[str], reason: str, dry_run: bool
) -> Report:
    """Add URLs (http, https; a fragment is dropped), md5s (of a URL or of an image's bytes) and
    sha256s (of an image's bytes). With dry_run, only say what would be.

    Counting the matches of image hashes reads all of ``mill.download``.
    """
    parsed = list({e.source: e for e in map(_parse, entries)}.values())
    md5s = [e.md5 for e in parsed if e.md5]
    sha256s = [e.sha256 for e in parsed if e.sha256]
    with connection.transaction(force_rollback=dry_run), connection.cursor() as cursor:
        cursor.executemany(
            "insert into mill.removal (source, md5, sha256, reason) values (%s, %s, %s, %s)"
            " on conflict (source) do nothing",
            [(e.source, e.md5, e.sha256, reason) for e in parsed],
        )
        added = cursor.rowcount
        matches = (files("pairmill.ops.admin") / "sql" / "removal_matches.sql").read_text("utf-8")
        cursor.execute(matches, {"md5s": md5s, "sha256s": sha256s})
        row = cursor.fetchone()
    return Report(added, len(parsed) - added, row[0] if row else 0)


def _parse(entry: str) -> _Entry:
    if re.fullmatch(r"[0-9a-fA-F]{32}", entry):
        return _Entry(entry.lower(), UUID(entry), None)
    if re.fullmatch(r"[0-9a-fA-F]{64}", entry):
        return _Entry(entry.lower(), None, bytes.fromhex(entry))
    url = urldefrag(entry).url
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or "\x00" in url:
        raise UserError(
            f"{entry[:200]!r} is no http(s) URL, no md5 (32 hex digits) and no sha256 (64)"
        )
    key = hashlib.md5(url.encode("utf-8", "surrogatepass"), usedforsecurity=False)
    return _Entry(url, UUID(bytes=key.digest()), None)
