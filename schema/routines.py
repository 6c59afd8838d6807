"""Routines of the schema: functions, views, triggers and grants.

Tables change by migrations, and only there. Routines are code: they are made anew as a whole, from
the files in ``sql/``, at every migration. So a revision holds nothing but the change of tables and
rows.

Without SQLAlchemy, whose import takes half a second: each command asks for ``version``.
"""

import hashlib
import json
from functools import cache

from pairmill.schema import kinds
from pairmill.schema.outcomes import DropReason, Outcome, ScoreOutcome
from pairmill.schema.scripts import sql

# In the order in which they refer to each other: an SQL function's body is read when it is made.
BEFORE_KINDS = (
    "core/guards", "core/url", "core/text", "removal", "core/lists", "core/partitions",
    "core/submit", "core/presence", "core/claim", "core/inbox", "core/accept", "core/item", "tag",
    "merge", "probe", "backfill",
)  # fmt: skip
AFTER_KINDS = (
    "core/hooks", "history", "counters", "credit", "counters_recount", "core/steward", "thumbnail",
    "model", "retry", "task", "source", "admin", "archive", "report/releases", "report/sample",
    "report/pairs", "report/extraction", "report/history", "report/queue", "report/waiting",
    "report/people", "report/models", "trust", "audit", "pages/logins", "pages/live",
    "pages/explore", "pages/viewer", "core/grants",
)  # fmt: skip


def script() -> str:
    """One script: the closed lists' rows, functions, views, triggers and rights of this version."""
    return f"{_body()}\nselect mill.say_version('{version()}');\n"


def version() -> str:
    """sha256 of this code's routines; mill.version() is that of a database's."""
    return hashlib.sha256(_body().encode()).hexdigest()


@cache
def _body() -> str:
    lists = {
        "task_kind": [kind.row for kind in kinds.KINDS],
        "drop_reason": [{"name": reason.value} for reason in DropReason],
        "outcome": [o.row | {"retry": o.retry_can_help} for o in Outcome],
        "score_outcome": [o.row for o in ScoreOutcome],
    }
    settings = {
        "pairmill.kinds": ",".join(kind.name for kind in kinds.KINDS),
        "pairmill.worker_kinds": ",".join(kinds.worker_kinds()),
        "pairmill.lists": json.dumps(lists),
    }
    parts = (*BEFORE_KINDS, *(f"kinds/{kind.name}" for kind in kinds.KINDS), *AFTER_KINDS)
    quoted = {name: value.replace("'", "''") for name, value in settings.items()}
    return "\n".join(
        [
            *(f"select set_config('{name}', '{value}', true);" for name, value in quoted.items()),
            *(sql(part) for part in parts),
        ]
    )
