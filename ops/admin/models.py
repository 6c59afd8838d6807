"""Models and taggers as rows of the database: adding, looking up, retiring and checking them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.types.json import Jsonb

from pairmill.ops.errors import UserError
from pairmill.ops.queries import rows

if TYPE_CHECKING:
    from pairmill.workers.score.heads import Head
    from pairmill.workers.score.model import Model


@dataclass(frozen=True)
class ModelInfo:
    """A description of a model for people. revision, licence: of the weights; each may be empty."""

    name: str
    revision: str = ""
    licence: str = ""


@dataclass(frozen=True)
class AddedModel:
    """name, digest: of the model. dims: length of an embedding. queued: tasks that are ready.
    unreachable: downloads whose thumbnails are gone, so that only a new download could give it."""

    name: str
    kind: str
    dims: int
    digest: str
    queued: int
    unreachable: int


def add_clip(connection: psycopg.Connection, about: ModelInfo, model: "Model") -> AddedModel:
    """Make a loaded CLIP model known: from now on every batch is scored by it too."""
    return _add(
        connection, about, "clip", model.dims, model.digest, pretrained=model.pretrained or ""
    )


def add_head(
    connection: psycopg.Connection,
    about: ModelInfo,
    head: "Head",
    base: dict[str, Any],
    metrics: dict[str, Any] | None = None,
) -> AddedModel:
    """Make a head or a zero-shot tagger on a model's image embeddings known; its weights are kept
    in the database. Raises UserError where its dims are not the model's."""
    if head.dims != base["dims"]:
        raise UserError(
            f"{about.name} reads embeddings of {head.dims} dims, and {base['name']} gives"
            f" {base['dims']}: it was made for another model"
        )
    labels = list(head.labels) if head.kind == "zero-shot" else None
    return _add(
        connection, about, head.kind, head.dims, head.digest, base=base, labels=labels,
        metrics=metrics, weights=head.to_bytes(),
    )  # fmt: skip


def add_pixels(
    connection: psycopg.Connection, about: ModelInfo, digest: str, base: dict[str, Any]
) -> AddedModel:
    """Make a tagger of thumbnails known; its weights are a file that each scorer needs."""
    return _add(connection, about, "pixels", 0, digest, base=base)


def _add(
    connection: psycopg.Connection,
    about: ModelInfo,
    kind: str,
    dims: int,
    digest: str,
    *,
    pretrained: str = "",
    base: dict[str, Any] | None = None,
    labels: list[str] | None = None,
    metrics: dict[str, Any] | None = None,
    weights: bytes | None = None,
) -> AddedModel:
    known = rows(connection, "select * from report.model where digest = %s", digest)
    if known and (known[0]["kind"], known[0]["base"]) != (kind, base and base["name"]):
        raise UserError(
            f"these weights are known already, as {known[0]['name']}, {known[0]['kind']}"
            + (f" on {known[0]['base']}" if known[0]["base"] else "")
        )
    try:
        (added,) = rows(
            connection,
            "select * from mill.add_model(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            about.name, pretrained, digest, dims, kind, base and base["model_id"], labels,
            about.revision, about.licence, Jsonb(metrics or {}), weights,
        )  # fmt: skip
    except psycopg.errors.UniqueViolation:
        raise UserError(
            f"there is a tagger {about.name!r} already, with other weights: give --name another"
        ) from None
    return AddedModel(about.name, kind, dims, digest, added["queued"], added["unreachable"])


def clip(
    connection: psycopg.Connection, name: str | None = None, *, digest: str | None = None
) -> dict[str, Any]:
    """The row of a known CLIP model, by name or by digest; without either, of the only one."""
    found = [
        model
        for model in rows(connection, "select * from mill.model where kind = 'clip' order by name")
        if name in (None, model["name"]) and digest in (None, model["digest"])
    ]
    if len(found) == 1:
        return found[0]
    names = "select name from mill.model where kind = 'clip' order by name"
    known = ", ".join(row["name"] for row in rows(connection, names)) or "none"
    what = f"several models {name or ''}" if found else f"no model {name or digest or ''}"
    raise UserError(f"the database has {what}: add it, or name one with --base; it has {known}")


def one(connection: psycopg.Connection, name: str) -> dict[str, Any]:
    """The row of report.model for the model or tagger of this name, or of this beginning of a
    digest (8 digits or more), with ``weights`` and ``model_id``."""
    found = rows(
        connection,
        "select r.*, m.weights, m.model_id from report.model r join mill.model m using (digest)"
        " where r.name = %s or length(%s) >= 8 and starts_with(r.digest, %s)",
        name, name, name,
    )  # fmt: skip
    if len(found) > 1:
        digests = ", ".join(row["digest"][:12] for row in found)
        raise UserError(
            f"the database has several models {name!r}: name one by its digest, {digests}"
        )
    if not found:
        raise UserError(f"the database has no model {name!r}: see `pairmill model list`")
    return found[0]


def retire(connection: psycopg.Connection, model: dict[str, Any], *, dry_run: bool) -> int:
    """End the use of a model; returns the number of its ready tasks, which are discarded. Raises
    UserError where it is retired already, or while tasks of it are at work."""
    if model["retired_at"]:
        raise UserError(f"{model['name']} was retired on {model['retired_at']:%Y-%m-%d %H:%M}")
    with connection.transaction(force_rollback=dry_run):
        (row,) = rows(
            connection,
            "select r.* from mill.model m, mill.retire_model(m.model_id) r where m.digest = %s",
            model["digest"],
        )
    if row["busy"]:
        raise UserError(
            f"{row['busy']} tasks of {model['name']} are at work or await acceptance: stop its"
            " workers, let the steward accept, and try again"
        )
    return int(row["discarded"])


def check_weights(model: dict[str, Any]) -> str:
    """Read the weights that the database keeps of a head again, and compare all that its row says.

    Gives a sentence. Raises UserError, or Refused, saying what does not hold.
    """
    from pairmill.workers.score.heads import Head

    data, name = bytes(model["weights"]), model["name"]
    head = Head.from_bytes(data)
    for what, found in (
        ("digest", hashlib.sha256(data).hexdigest()),
        ("kind", head.kind),
        ("dims", head.dims),
        ("labels", list(head.labels) or None),
    ):
        if found != model[what]:
            raise UserError(f"{name}: its row says {what} {model[what]}, its weights {found}")
    return f"{name}: {len(data):,} bytes of weights, as their row says"


def name_of(path: Path) -> str:
    """The default name of a tagger that is read from a file."""
    return path.name.removesuffix("".join(path.suffixes[-1:]))
