"""pairmill model: models that score, and taggers."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pairmill.ops.admin import models
from pairmill.ops.admin.connection import admin
from pairmill.ops.commands.backfill import backfill
from pairmill.ops.commands.completion import MODEL as KNOWN
from pairmill.ops.commands.completion import known_models
from pairmill.ops.errors import UserError, extra
from pairmill.ops.output import print_json, print_rows, progress_bar
from pairmill.ops.queries import rows
from pairmill.workers.safe_text import say

if TYPE_CHECKING:
    from pairmill.workers.score.model import Model

app = typer.Typer(no_args_is_help=True, help="Models that score, and taggers.")
app.command("backfill")(backfill)

MODEL = typer.Option(..., "--model", help="open_clip's model name, or the folder of a model.")
ANY_MODEL = typer.Option(None, "--model", help="open_clip's model name, or the folder of a model.")
PRETRAINED = typer.Option(
    "", "--pretrained", help="open_clip's tag, or a checkpoint's path or URL (with --sha256)."
)
SHA256 = typer.Option(None, "--sha256", help="Of the file of weights; needed for a URL.")
BASE = typer.Option(
    None, "--base", help="The CLIP model (by its --name) whose embeddings it reads; not needed"
    " where there is one."
)  # fmt: skip
NAME = typer.Option(
    None, "--name", help="The name that recipes use; --model or the file's by default."
)
REVISION = typer.Option("", "--revision", help="Which version of the weights.")
LICENCE = typer.Option("", "--licence", help="Of the weights.")
JSON = typer.Option(False, "--json", help="JSON.")


def load(
    name: str, pretrained: str, device: str, *, sha256: str | None = None, **options: Any
) -> "Model":
    """A loaded model; its weights are downloaded first where ``pretrained`` is a URL."""
    with extra("score"):
        from pairmill.workers.score.model import load as loaded
    path = fetched(pretrained, sha256) if pretrained else None
    model = loaded(name, path, device=device, **options)
    model.pretrained = pretrained or None
    return model


def fetched(source: str, sha256: str | None) -> str:
    """The path of weights given by path or URL, with a progress bar while they are downloaded."""
    from pairmill.workers.score import weights

    with progress_bar() as bar:
        task = bar.add_task("downloading weights", total=None, visible=weights.is_url(source))
        return weights.local(
            source, sha256, lambda done, total: bar.update(task, completed=done, total=total)
        )


@app.command("add")
def add(
    name: str = ANY_MODEL,
    pretrained: str = PRETRAINED,
    sha256: str = SHA256,
    head: str = typer.Option(
        None,
        "--head",
        help="A head on image embeddings: .safetensors of ours, LAION's aesthetic predictors"
        " (.pth) or NSFW detectors (.zip); or a URL with --sha256.",
    ),
    zero_shot: Path = typer.Option(
        None,
        "--zero-shot",
        help="Categories with their prompts (TOML); --model encodes them once.",
    ),
    watermark: str = typer.Option(
        None, "--watermark", help="Weights of LAION's watermark detector; they stay a file."
    ),
    base: str = BASE,
    known_as: str = NAME,
    revision: str = REVISION,
    licence: str = LICENCE,
    as_json: bool = JSON,
) -> None:
    """Make a model or a tagger known: from now on every batch is scored by it too."""
    taggers = [Path(path) for path in (head, zero_shot, watermark) if path]
    if len(taggers) > 1 or not (taggers or name) or (name and (head or watermark)):
        raise UserError(
            "give --model for a CLIP model, or one of --head FILE, --watermark FILE, or --zero-shot"
            " FILE with the --model that encodes its prompts"
        )
    called = known_as or (models.name_of(taggers[0]) if taggers else name)
    about = models.ModelInfo(called, revision, licence)
    if zero_shot:
        model = _encoder(name, pretrained, sha256)
        added = _add_zero_shot(about, zero_shot, model, base)
    elif head:
        added = _add_head(about, Path(fetched(head, sha256)), base)
    elif watermark:
        added = _add_watermark(about, Path(fetched(watermark, sha256)), base)
    else:
        loaded = load(name, pretrained, "cpu", sha256=sha256)
        with admin() as connection:
            added = models.add_clip(connection, about, loaded)
    print_added(added, as_json=as_json)


def _add_head(about: models.ModelInfo, path: Path, base: str | None) -> models.AddedModel:
    with extra("score"):
        from pairmill.ops.taggers import head_files
    read = head_files.load(path)
    with admin() as connection:
        return models.add_head(connection, about, read, models.clip(connection, base))


def _add_watermark(about: models.ModelInfo, path: Path, base: str | None) -> models.AddedModel:
    with extra("score"):
        from pairmill.workers.score import watermark
    tagger = watermark.load(path)
    with admin() as connection:
        row = models.clip(connection, base)
        return models.add_pixels(connection, about, tagger.digest, row)


def _encoder(name: str | None, pretrained: str, sha256: str | None) -> "Model":
    if not name:
        raise UserError("--zero-shot needs --model, which encodes the prompts")
    return load(name, pretrained, "auto", sha256=sha256)


def _add_zero_shot(
    about: models.ModelInfo, path: Path, model: "Model", base: str | None
) -> models.AddedModel:
    from pairmill.ops.taggers import zero_shot

    made = zero_shot.head(zero_shot.read(path), model.encode_texts, scale=model.logit_scale)
    with admin() as connection:
        row = models.clip(connection, base, digest=model.digest)
        return models.add_head(connection, about, made, row)


def print_added(added: models.AddedModel, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(added))
        return
    dims = f"{added.dims} dims, " if added.dims else ""
    kind = "model" if added.kind == "clip" else f"{added.kind} tagger"
    say(f"{kind} {added.name}: {dims}sha256 {added.digest}; {added.queued} batches queued")
    if added.unreachable:
        say(
            f"of {added.unreachable} downloads of batches the thumbnails are gone:"
            f" `pairmill model backfill {added.name} --dry-run` says what scoring them costs"
        )


@app.command("list")
def listed(as_json: bool = typer.Option(False, "--json", help="A JSON array.")) -> None:
    """The models that score, and the taggers."""
    with admin() as connection:
        found = rows(
            connection, "select * from report.model order by coalesce(base, name), kind, name"
        )
    print_rows(
        found,
        ("name", "pretrained", "kind", "base", "dims", "digest", "retired_at"),
        as_json=as_json,
        empty="no models: add one with `pairmill model add --model NAME`",
    )


@app.command("show")
def show(name: str = KNOWN, as_json: bool = JSON) -> None:
    """The description of a model or tagger, and the states of its tasks."""
    with admin() as connection:
        found = models.one(connection, name)
        found["weights_bytes"] = len(found.pop("weights") or b"") or None
        del found["model_id"]
        found["tasks"] = {
            row["state"]: row["n"]
            for row in rows(
                connection,
                "select t.state, count(*) as n from mill.task t join mill.model m using (model_id)"
                " where m.digest = %s group by 1 order by 1",
                found["digest"],
            )
        }
    if as_json:
        print_json(found)
        return
    for key, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        if value not in (None, "", []):
            say(f"{key.replace('_', ' '):14} {value}")


@app.command("retire")
def retire(
    name: str = KNOWN,
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Say how many tasks it would discard; retire nothing."
    ),
    as_json: bool = JSON,
) -> None:
    """Score nothing by a model or tagger any more. What was scored stays; `model add` undoes it."""
    with admin() as connection:
        discarded = models.retire(connection, models.one(connection, name), dry_run=dry_run)
    if as_json:
        print_json({"name": name, "discarded": discarded, "dry_run": dry_run})
        return
    done, are = ("would be retired", "would be") if dry_run else ("is retired", "are")
    say(f"{name} {done}; {discarded:,} ready tasks {are} discarded; what it scored stays")


@app.command("check")
def check(
    known_as: str = typer.Argument(
        help="As `pairmill model list` names it.", autocompletion=known_models
    ),
    name: str = ANY_MODEL,
    pretrained: str = PRETRAINED,
    sha256: str = SHA256,
    watermark: str = typer.Option(None, "--watermark", help="Weights of a watermark detector."),
) -> None:
    """Compare weights with those that the database knows by this name: the given ones, or for a
    head those in the database."""
    with admin() as connection:
        known = models.one(connection, known_as)
    if known["weights"] is not None:
        with extra("score"):
            say(models.check_weights(known))
        return
    if known["kind"] == "pixels":
        if not watermark:
            raise UserError(f"the weights of {known_as} are a file: give --watermark FILE")
        with extra("score"):
            from pairmill.workers.score import watermark as detector
        digest = detector.load(Path(fetched(watermark, sha256))).digest
    else:
        if not name:
            raise UserError(
                f"{known_as} is a CLIP model: give --model, and --pretrained if it has one"
            )
        digest = load(name, pretrained, "cpu", sha256=sha256).digest
    if digest != known["digest"]:
        raise UserError(
            f"these weights have sha256 {digest}, those of {known_as} {known['digest']}"
        )
    say(f"{known_as}: the same weights, sha256 {digest}")


@app.command("train-head")
def train_head(
    ratings: Path = typer.Option(
        ..., "--ratings", help="CSV or Parquet: SAMPLE_ID and a column of ratings."
    ),
    known_as: str = typer.Option(..., "--name", help="The name that recipes use."),
    base: str = BASE,
    column: str = typer.Option(None, "--column", help="That of the ratings, if there are several."),
    method: str = typer.Option("ridge", "--method", help="ridge, or mlp: one hidden layer."),
    held_out: float = typer.Option(0.1, "--held-out", help="Share that only measures it."),
    seed: int = typer.Option(0, "--seed", help="Of the split, and of the network."),
    revision: str = REVISION,
    licence: str = LICENCE,
    dry_run: bool = typer.Option(False, "--dry-run", help="Train and measure; add nothing."),
    as_json: bool = JSON,
) -> None:
    """Train a head on the stored embeddings of rated samples, and make it known."""
    with extra("score"):
        from pairmill.ops.taggers import ratings as files
        from pairmill.ops.taggers import training
        from pairmill.ops.taggers.rated_embeddings import rated_embeddings
    given = files.read(ratings, column)
    with admin() as connection:
        row = models.clip(connection, base)
        embeddings, values, missing = rated_embeddings(connection, row, given)
        trained = training.train(embeddings, values, method=method, held_out=held_out, seed=seed)
        metrics = trained.metrics() | {"without_embedding": missing}
        added = None
        if not dry_run:
            about = models.ModelInfo(known_as, revision, licence)
            added = models.add_head(connection, about, trained.head, row, metrics)
    if as_json:
        print_json(metrics | {"model": asdict(added) if added else None})
        return
    rank = "not defined" if trained.spearman is None else f"{trained.spearman:.3f}"
    say(
        f"trained on {trained.n_train:,} samples; of {trained.n_held_out:,} held-out ones the mean"
        f" absolute error is {trained.mae:.4f} (the mean's: {trained.baseline_mae:.4f}), the rank"
        f" correlation {rank}"
    )
    if missing:
        say(f"{missing:,} rated samples have no embedding of {row['name']}")
    if added:
        print_added(added, as_json=False)
