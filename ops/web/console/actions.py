"""Actions of the admin's page: what each takes, what it would do, and the doing.

Every one calls the function that the command calls. It is asked for by GET, which rehearses it and
shows what it would do, and done by POST with a confirmation of exactly that.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg
from starlette.datastructures import ImmutableMultiDict

from pairmill.ops.admin.audit_log import Actor, acting
from pairmill.ops.admin.removal_search import Progress
from pairmill.ops.errors import UserError
from pairmill.ops.web.console.confirmations import fingerprint

Arguments = Mapping[str, str]


@dataclass(frozen=True)
class Shown:
    """What an action would do. lines: sentences; numbers: what the confirmation is bound to;
    columns, rows: a table of what is touched (a part, where it is long); ready: whether there is
    anything to do."""

    lines: Sequence[str]
    numbers: Mapping[str, Any] = field(default_factory=dict)
    columns: Sequence[tuple[str, str, str]] = ()
    rows: Sequence[Mapping[str, Any]] = ()
    ready: bool = True

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.numbers)


@dataclass(frozen=True)
class Done:
    """What an action did: sentences, how much it changed, numbers for the audit log, and a table as
    that of Shown."""

    lines: Sequence[str]
    affected: int | None = None
    answer: Mapping[str, Any] = field(default_factory=dict)
    columns: Sequence[tuple[str, str, str]] = ()
    rows: Sequence[Mapping[str, Any]] = ()


class Changed(UserError):
    """The numbers are not those that were confirmed."""


class Preview(Protocol):
    def __call__(
        self, connection: psycopg.Connection, given: Arguments, progress: Progress
    ) -> Shown: ...


class Do(Protocol):
    def __call__(
        self,
        connection: psycopg.Connection,
        given: Arguments,
        shown: str,
        progress: Progress,
    ) -> Done: ...


@dataclass(frozen=True)
class PageAction:
    """One thing that an admin can do.

    takes: the names of its arguments; asks: those that the confirming page asks for, as (name,
    label, kind of field, hint). settles: done once it is confirmed and before it is counted again,
    so that a worker that goes on working cannot change the count for ever; settled: that, in words.
    recounts: whether the
    preview is made again before it is done; else ``do`` compares by itself, as it counts. back:
    where the page leads to afterwards.
    """

    name: str
    title: str
    takes: tuple[str, ...]
    preview: Preview
    do: Do
    command: Callable[[Arguments], str]
    asks: tuple[tuple[str, str, str, str], ...] = ()
    settles: Callable[[psycopg.Connection, Arguments], None] | None = None
    settled: str = ""
    recounts: bool = True
    severe: bool = False
    back: str = "/"

    def read(self, given: ImmutableMultiDict[str, Any]) -> dict[str, str]:
        """Its arguments among those of a request; several of a name are one text."""
        found = {name: " ".join(str(v) for v in given.getlist(name)).strip() for name in self.takes}
        return {name: text for name, text in found.items() if text}

    def bound(self, given: Arguments) -> dict[str, str]:
        """What a confirmation is bound to: all but the words that its own page asks for."""
        asked = {name for name, *_ in self.asks}
        return {name: text for name, text in given.items() if name not in asked}

    def run(
        self,
        connection: psycopg.Connection,
        by: Actor,
        given: Arguments,
        shown: str,
        progress: Progress,
    ) -> Done:
        """Do it, as ``shown`` was confirmed, and write it to the audit log. Raises Changed where
        there is another number of things now."""
        with acting(connection, by, self.name, given) as deed:
            if self.settles:
                self.settles(connection, given)
            if self.recounts and self.preview(connection, given, progress).fingerprint != shown:
                raise Changed(
                    "since you looked the numbers have changed:"
                    f" {self.settled or 'nothing was done'}; look again"
                )
            done = self.do(connection, given, shown, progress)
            deed.affected, deed.answer = done.affected, dict(done.answer)
        return done


def wanted(given: Arguments, name: str, what: str) -> str:
    """An argument that there must be. Raises UserError."""
    if name not in given:
        raise UserError(f"{what} is missing")
    return given[name]


def row_number(given: Arguments, name: str, what: str) -> int:
    """An argument that is the number of a row. Raises UserError."""
    text = wanted(given, name, what)
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise UserError(f"{what} is a number, not {text[:40]!r}")
    return int(text)


def quoted(text: str) -> str:
    """A text as a shell takes it."""
    return "'" + text.replace("'", "'\\''") + "'"
