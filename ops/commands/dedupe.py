"""pairmill dedupe: what is found twice, among facts or in a release, and evaluation sets."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pairmill.ops.commands.options import AS_JSON, counted, progress
from pairmill.ops.errors import UserError
from pairmill.ops.output import print_json, print_rows
from pairmill.workers.safe_text import say

if TYPE_CHECKING:
    from pairmill.ops.dedupe.spec import Dedupe

app = typer.Typer(no_args_is_help=True, help="Duplicates, and images of evaluation sets.")


@app.command("report")
def report(
    given: list[str] = typer.Argument(
        metavar="FACTS|RELEASE...", help="Folders of facts, an archive, or a release's folder."
    ),
    recipe: str = typer.Option("", "--recipe", help="Whose [dedupe] is asked; else the defaults."),
    change: list[str] = typer.Option(
        [], "--set", help="A key of [dedupe], as in --set dhash_radius=3; several times."
    ),
    samples: int = typer.Option(3, "--samples", min=0, help="Groups shown of each method."),
    model_id: int = typer.Option(0, "--model-id", help="Whose embeddings; needed if of several."),
    memory: str = typer.Option("4GB", "--memory", help="DuckDB's; beyond it, it spills to disk."),
    as_json: bool = AS_JSON,
) -> None:
    """Say what is found twice: by method, by size of group, with samples. Nothing is changed.

    Of a release: what is still alike by URL and text among its rows. Its manifest says what was
    left out of it.
    """
    from pairmill.ops.dedupe import report as reports

    spec = _spec(recipe, change)
    with reports.opened(memory, None) as (db, work), progress("comparing") as tell:
        facts, model = _open_pool(db, given, model_id, spec)
        found = reports.report(db, spec, facts, work, model_id=model, groups=samples, progress=tell)
    if as_json:
        print_json(found)
        return
    say(f"{counted(found['rows'], 'row')}, {found['duplicates']:,} go, {found['stay']:,} stay")
    print_rows(
        found["methods"], ("method", "rows", "groups", "recall", "precision"), as_json=False,
        empty="no method was asked for",
    )  # fmt: skip
    print_rows(found["sizes"], ("size", "groups"), as_json=False, empty="no groups")
    for group in found["samples"]:
        _say_group(group)
    for row in found["contaminated"]:
        say(f"{row['sample_id']} is near {row['image']} of {row['evaluation']}")


def _say_group(group: dict[str, Any]) -> None:
    stays = group["stays"]
    say(f"{group['method']}: {stays['sample_id']} stays: {stays['url']} {stays['text']!r:.80}")
    for row in group["go"]:
        say(f"  {row['sample_id']} goes: {row['url']} {row['text']!r:.80}")
    if more := group["rows"] - len(group["go"]):
        say(f"  and {more:,} more")


def _spec(recipe: str, change: list[str]) -> "Dedupe":
    import msgspec

    from pairmill.ops.dedupe.spec import Dedupe
    from pairmill.ops.release.recipe import load, parse_overrides
    from pairmill.ops.release.recipe_checks import check_values

    spec = load(recipe).dedupe if recipe else Dedupe()
    if spec is None:
        raise UserError(f"recipe {recipe} has no [dedupe]: --set names what to compare")
    values = msgspec.structs.asdict(spec) | parse_overrides(change)
    check_values(
        recipe or "of --set",
        values,
        {field.name: field for field in msgspec.structs.fields(Dedupe)},
    )
    return msgspec.convert(values, Dedupe)


def _open_pool(db: Any, given: list[str], model_id: int, spec: "Dedupe") -> tuple[list[Any], Any]:
    from pairmill.ops.dedupe import report as reports
    from pairmill.ops.release.folder import is_release

    if len(given) == 1 and "://" not in given[0] and is_release(Path(given[0])):
        _pool_of_release(db, Path(given[0]))
        if spec.dhash_radius >= 0 or spec.needs_embeddings:
            raise UserError(
                "a release has no dHashes and no embeddings: name the facts that it was made from"
            )
        return [], None
    facts = [each for one in given for each in reports.facts_below(one)]
    model = model_id or reports.model_of(facts)
    reports.pool_of_facts(db, facts, model)
    return facts, model


def _pool_of_release(db: Any, folder: Path) -> None:
    from pairmill.ops.dedupe.report import quoted
    from pairmill.ops.release.folder import read_release

    parts = read_release(folder).parts
    if not parts:
        raise UserError(f"the release {folder} has no rows")
    files = f"read_parquet([{', '.join(quoted(str(path)) for path in parts)}])"
    names = {row[0].lower() for row in db.execute(f"DESCRIBE FROM {files}").fetchall()}
    if not {"sample_id", "url"} <= names:
        raise UserError(f"{folder} has no SAMPLE_ID: its layout cannot be compared row by row")
    text = "text" if "text" in names else "caption" if "caption" in names else "''"
    width, height = (n if n in names else "null::int" for n in ("width", "height"))
    similarity = "similarity::float" if "similarity" in names else "null::float"
    db.execute(
        f"CREATE VIEW pool AS SELECT sample_id, url, {text} AS text, NULL::BLOB AS sha256,"
        f" NULL::BIGINT AS dhash, {width}::INT AS width, {height}::INT AS height,"
        f" {similarity} AS similarity, false AS removed FROM {files}"
    )


@app.command("curve")
def curve(
    threshold: float = typer.Option(0.8, "--min-jaccard", min=0.3, max=1, help="As in a recipe."),
    as_json: bool = AS_JSON,
) -> None:
    """Print the chance that two texts are compared, by their similarity: what dedupe.text = "near"
    finds."""
    from pairmill.ops.dedupe.texts import bands_of
    from pairmill.ops.dedupe.texts import curve as points

    bands, rows = bands_of(threshold)
    found = points(threshold)
    if as_json:
        print_json({"min_jaccard": threshold, "bands": bands, "rows": rows, "curve": found})
        return
    say(f"{bands} bands of {rows} rows; pairs below {threshold:g} are then compared and left alone")
    print_rows(found, ("jaccard", "found"), as_json=False, empty="")


@app.command("evaluation")
def evaluation(
    folder: Path = typer.Argument(help="The images of an evaluation set."),
    out: Path = typer.Argument(help="A file to write, as EVALUATION.parquet."),
    model: str = typer.Option("", "--model", help="Of the recipe, for embeddings; else dHashes."),
    pretrained: str = typer.Option("", "--pretrained", help="As in `pairmill model add`."),
    device: str = typer.Option("auto", "--device", help="cpu, cuda, …"),
    as_json: bool = AS_JSON,
) -> None:
    """Write the dHashes and embeddings of an evaluation set's images, for dedupe.decontaminate."""
    from pairmill.ops.dedupe.decontaminate import write_set

    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    if out.exists():
        raise UserError(f"{out} exists: name another file, or remove it")
    loaded = None
    if model:
        from pairmill.workers.score.model import load

        loaded = load(model, pretrained or None, device=device)
    count = write_set(folder, out, loaded)
    if as_json:
        print_json({"images": count, "file": str(out), "model": loaded and loaded.digest})
        return
    say(f"{counted(count, 'image')} in {out}; in a recipe's [dedupe]:")
    say(f'decontaminate = ["{out}"]')
