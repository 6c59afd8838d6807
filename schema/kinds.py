"""The kinds of work: each is declared here, has a file in ``sql/kinds/``, a folder in ``workers/``.

The database holds the declarations as rows of ``mill.task_kind``; the functions that all kinds
share read those rows, and call the kind's own functions (its hooks, see ``sql/core/hooks.sql``).
docs/new-kind.md walks through a new one.
"""

from dataclasses import dataclass
from typing import Any, Literal

PAGES = ("live", "explore", "viewer")  # kinds of pages' logins; the admin's own is an admin's
STEWARD = "steward"  # a kind of worker that claims no tasks: it accepts the others' submissions


@dataclass(frozen=True)
class Kind:
    """A kind of work.

    name: letters, digits and underscores; also the name of its command, SQL file and folder.
    subject: the row that a task is about: a WAT file, a batch of pairs, or an item with a spec.
    needs_model: whether a task names a model, and is claimed by its weights' digest.
    upstream: kinds whose unfinished tasks may yet lead to tasks of this one; a worker that drains
        waits for them.
    is_replicated: whether samples of unproven workers' results are repeated by other workers.
    writes_thumbnails, reads_thumbnails: a task that writes is given a slot of the ring of
        thumbnails when it is claimed; a slot is emptied once no task that reads needs it.
    lease_seconds, lease_max_seconds: as in ``mill.setting``; None: as there.
    worker_kind: the kind of login that may claim it; by default its own name.
    """

    name: str
    subject: Literal["wat", "batch", "item"]
    needs_model: bool = False
    upstream: tuple[str, ...] = ()
    is_replicated: bool = False
    writes_thumbnails: bool = False
    reads_thumbnails: bool = False
    lease_seconds: int | None = None
    lease_max_seconds: int | None = None
    worker_kind: str = ""

    @property
    def row(self) -> dict[str, Any]:
        """The row of ``mill.task_kind``."""
        row = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return row | {"upstream": list(self.upstream), "worker_kind": self.login}

    @property
    def login(self) -> str:
        """The kind of login that may claim it."""
        return self.worker_kind or self.name


KINDS = (
    Kind("extract", "wat"),
    Kind(
        "download",
        "batch",
        upstream=("extract",),
        is_replicated=True,
        writes_thumbnails=True,
    ),
    Kind(
        "score",
        "batch",
        needs_model=True,
        upstream=("extract", "download"),
        reads_thumbnails=True,
    ),
)


def login_of(name: str) -> str:
    """The kind of login that may claim a kind of work, or that a steward has."""
    return next((kind.login for kind in KINDS if kind.name == name), name)


def worker_kinds() -> tuple[str, ...]:
    """The kinds of logins that workers have, the steward's last."""
    return (*dict.fromkeys(kind.login for kind in KINDS), STEWARD)
