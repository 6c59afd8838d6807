"""What the shell completes beside commands and options: names and numbers that the database has.

A press of a key must cost nothing: a second at most, no server is started, nothing is printed, and
where there is no answer there are no proposals. `pairmill --install-completion` sets the shell up.
"""

import re
import threading
from collections.abc import Callable

import typer

from pairmill.schema.kinds import KINDS, worker_kinds

SECONDS = 1.0
MOST = 200  # proposals; the newest, where there are more
TASK_STATES = ("ready", "leased", "submitted", "done", "discarded", "parked")
Proposals = list[tuple[str, str]]  # a value, and what it is
Completer = Callable[[str], Proposals]
# a name with other characters, a hostile one among them, would need the shell's own quoting
_PLAIN = re.compile(r"[\w.,:;@%+*/=~-]+")
# typer takes what a value is for markup, and zsh evaluates what typer prints: of a removal's URL,
# [/b] would end the completion, and a backslash before $(…) would run it
_UNQUOTED = re.compile(r"[^\w .,:;@%+*/=~?&#-]")


def one_of(*values: str) -> Completer:
    """Proposes values of a closed list."""
    return lambda incomplete: [(v, "") for v in values if v.startswith(incomplete)]


def from_database(query: str) -> Completer:
    """Proposes what a query gives: pairs of texts, the value and what it is."""

    def complete(incomplete: str) -> Proposals:
        found: Proposals = []
        # a thread: neither a slow network nor a lock in the database keeps the shell waiting
        asking = threading.Thread(target=_ask, args=(query, incomplete, found), daemon=True)
        asking.start()
        asking.join(SECONDS)
        return list(found)

    return complete


def _ask(query: str, incomplete: str, found: Proposals) -> None:
    try:
        import psycopg

        dsn = _dsn()
        if not dsn:
            return
        with psycopg.connect(dsn, connect_timeout=2, application_name="pairmill") as connection:
            connection.read_only = True
            rows = connection.execute(
                f"select value::text, coalesce(help, '')::text from ({query}) x (value, help)"
                " where starts_with(value::text, %s) limit %s",
                (incomplete, MOST),
            ).fetchall()
        found += [(value, _shown(about)) for value, about in rows if _PLAIN.fullmatch(value)]
    except Exception:  # whatever it is, a completion is no place to say so
        return


def _shown(about: str) -> str:
    from pairmill.workers.safe_text import safe

    return _UNQUOTED.sub("_", safe(about, 60))


def _dsn() -> str:
    """The admin's DSN, or that of an embedded server that runs; empty where there is neither."""
    import os

    from pairmill.ops.admin.connection import home
    from pairmill.ops.server.embedded import EmbeddedServer

    if url := os.environ.get("DATABASE_URL"):
        return url.replace("postgresql+psycopg://", "postgresql://", 1)
    server = EmbeddedServer(home())
    return server.url() if server.is_made() and server.running() else ""


def recipes(incomplete: str) -> Proposals:
    """Proposes the recipes that come with Pairmill."""
    try:
        from pairmill.ops.release.recipe import builtin

        return [(name, "") for name in builtin() if name.startswith(incomplete)]
    except Exception:
        return []


workers = from_database("select name, kind from mill.worker order by name")
researchers = from_database("select name, null from mill.researcher order by name")
known_models = from_database(
    "select name, kind from mill.model order by retired_at is not null, name"
)
outcomes = from_database("select name, null from mill.outcome order by code")
crawls = from_database("select name, null from mill.crawl order by name")
wat_files = from_database(
    "select f.wat_id, f.location from mill.wat_file f where f.removed_at is null order by 1 desc"
)
tasks = from_database(
    "select task_id, kind || ', ' || state from mill.task where state <> 'done'"
    " order by changed_at desc"
)
removals = from_database(
    "select removal_id, source from mill.removal where spelling_of is null order by 1 desc"
)
releases = from_database("select distinct name, null from mill.release order by 1")
kinds = one_of(*(kind.name for kind in KINDS))
login_kinds = one_of(*worker_kinds())
task_states = one_of(*TASK_STATES)

WORKER = typer.Argument(
    metavar="NAME", help="As `pairmill worker list` names it.", autocompletion=workers
)
RESEARCHER = typer.Argument(
    metavar="NAME", help="As `pairmill researcher list` names them.", autocompletion=researchers
)
MODEL = typer.Argument(
    metavar="NAME", help="As `pairmill model list` names it.", autocompletion=known_models
)
