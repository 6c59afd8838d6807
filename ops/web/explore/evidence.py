"""What is known of a pair, and why releases have it or not: `pairmill why` as a page.

It is asked by URL: that of a served release's row, or one that the visitor gives. By SAMPLE_ID
alone, which anybody can count up, it would show the URLs that no release took.
"""

import base64
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from pairmill.ops.admin.removal_entries import parse
from pairmill.ops.errors import UserError
from pairmill.ops.release.decisions import KEPT, NONE_STAYS, duplicate_of
from pairmill.ops.release.reasons import PairFacts, because
from pairmill.ops.release.recipe import Recipe
from pairmill.ops.release.selection import Model, Selection
from pairmill.ops.web.explore.explore_settings import ExploreSettings
from pairmill.ops.web.explore.mine import keys_of
from pairmill.ops.web.failures import wants_json
from pairmill.ops.web.render import render

# what a build alone could tell, or what was so then and need not be so now
THEN = {
    "not_downloaded": "it was not downloaded yet when the release was built",
    "not_scored": "it was not scored yet when the release was built",
    "removed": "it was left out with removed rows and the random ones that hide them",
    "withdrawn": "what it rests on was withdrawn then",
    "top_fraction": "its similarity was below that of the recipe's fraction of the pool",
    "no candidate": "it was no candidate of this release, or came in later",
}


@dataclass(frozen=True)
class ReleaseVerdict:
    """What a release decided. decision: kept, a reason, or None where it is not recorded. of: the
    SAMPLE_ID that it repeats, where that may be shown."""

    release: str
    version: int
    built_at: str
    decision: str | None
    because: str
    of: int | None = None


@dataclass(frozen=True)
class PairEvidence:
    """facts: api.evidence_v1 without what ``verdicts`` says."""

    sample_id: int
    facts: dict[str, Any]
    verdicts: list[ReleaseVerdict]

    @property
    def download(self) -> dict[str, Any] | None:
        """The download that counts."""
        counting = [each for each in self.facts["downloads"] if each["counts"]]
        return counting[-1] if counting else None


def evidence(settings: ExploreSettings, url: str) -> PairEvidence | None:
    """What is known of a URL's pair; None where that is nothing, where it was removed, or where
    there is no database beside the releases. Raises UserError for what is no URL."""
    entry = parse(url)
    if entry.kind != "url":
        raise UserError(f"{url[:200]!r} is no address: it begins with http:// or https://")
    if settings.calls is None:
        return None
    manifests = [each.manifest_sha256 for each in settings.releases.served()][:50]
    for key in keys_of(entry):
        facts = settings.calls.evidence(key, manifests)
        if facts is not None:
            told = facts.pop("releases")
            verdicts = [_verdict(settings, facts, record) for record in told]
            return PairEvidence(int(facts["sample_id"]), facts, verdicts)
    return None


def routes(settings: ExploreSettings) -> list[BaseRoute]:
    """/r/NAME/SAMPLE_ID/evidence of a release's row, /evidence?url= of any URL."""

    def of_row(request: Request) -> Response:
        name, sample_id = request.path_params["name"], request.path_params["sample_id"]
        release = settings.releases.get(name)
        if release is None or release.trouble or (row := release.row(sample_id)) is None:
            raise HTTPException(404, "No release here has such a row.")
        if sample_id in settings.releases.hidden([sample_id]):
            raise HTTPException(410, "This row was removed since the release was made.")
        url = str(row[release.shape.by_role["url"]])
        return _page(request, settings, url, f"/r/{name}/{sample_id}")

    def of_url(request: Request) -> Response:
        return _page(request, settings, request.query_params.get("url", "").strip(), "")

    return [
        Route("/r/{name}/{sample_id:int}/evidence", of_row, methods=["GET"]),
        Route("/evidence", of_url, methods=["GET"]),
    ]


def _page(request: Request, settings: ExploreSettings, url: str, row: str) -> Response:
    if settings.calls is None:
        raise HTTPException(
            404, "There is no database beside this page: it shows what the releases say."
        )
    found = evidence(settings, url)
    if found is None:
        raise HTTPException(404, "Nothing is known of it here, or it is archived.")
    headers = {"Cache-Control": "no-store"}
    if wants_json(request):
        told = found.facts | {"releases": [vars(each) for each in found.verdicts]}
        return JSONResponse(told, headers=headers)
    return render(
        request, "explore/evidence.html", headers=headers, found=found, row=row, date=_date
    )


def _date(moment: str | None) -> datetime | None:
    """A moment as jsonb has it."""
    return datetime.fromisoformat(moment) if moment else None


def _verdict(
    settings: ExploreSettings, facts: dict[str, Any], record: dict[str, Any]
) -> ReleaseVerdict:
    decision = record["decision"]
    known = record["name"], record["version"], record["built_at"], decision
    if decision is None:
        return ReleaseVerdict(*known, "not recorded: it came in later, or was no candidate")
    packed = base64.b64decode(record["duplicates"] or "")
    duplicate = duplicate_of(packed, facts["n"]) if packed and decision != KEPT else None
    if duplicate:
        other, method = duplicate[0], record["methods"][duplicate[1]]
        if other == NONE_STAYS:
            return ReleaseVerdict(*known, "near an image of an evaluation set, which stays out")
        gone = other in settings.releases.hidden([other])
        said = f"it repeats another pair, by {method}"
        return ReleaseVerdict(*known, said, None if gone else other)
    if decision in THEN:
        return ReleaseVerdict(*known, THEN[decision])
    return ReleaseVerdict(*known, _because(facts, record, decision))


def _because(facts: dict[str, Any], record: dict[str, Any], decision: str) -> str:
    """The recipe's reason with the pair's numbers of today."""
    plain = decision.replace("_", " ")
    try:
        recipe = msgspec.convert(record["recipe"], Recipe)
        selection, row = _selection(recipe, facts), _row(recipe, facts)
        told = PairFacts(_pair(facts), facts["scores"])
        reason = None if decision == KEPT else decision
        if reason == "similarity" and (row["similarity"] is None or not _below(selection, row)):
            return "its similarity then; it was scored again since"
        return because(reason, told, selection, row)
    except (msgspec.ValidationError, KeyError, TypeError, ValueError, IndexError):
        return plain  # a recipe of another version, or a value that has gone since


def _below(selection: Selection, row: dict[str, Any]) -> bool:
    recipe = selection.recipe
    least = recipe.min_similarity_by_language.get(row["language"], recipe.min_similarity)
    above = recipe.above_similarity
    value = row["similarity"]
    return (least is not None and value < least) or (above is not None and value <= above)


def _models(facts: dict[str, Any]) -> dict[str, Model]:
    return {f"{each['name']} {each['pretrained']}".strip(): each for each in facts["scores"]}


def _selection(recipe: Recipe, facts: dict[str, Any]) -> Selection:
    """As ``selection.select``, from the models that the evidence names."""
    models = _models(facts)
    other = f"{recipe.multilingual_model} {recipe.multilingual_pretrained}".strip()
    return Selection(
        recipe,
        models.get(f"{recipe.model} {recipe.pretrained}".strip()) if recipe.model else None,
        models.get(other) if recipe.multilingual_model else None,
        [{"name": name, "labels": None} for name in recipe.tags.values()],
        {},
    )


def _row(recipe: Recipe, facts: dict[str, Any]) -> dict[str, Any]:
    """The columns of ``candidate`` that reasons read."""
    model = _selection(recipe, facts).model_of(facts["language"])
    download: dict[str, Any] = next((d for d in facts["downloads"] if d["counts"]), {})
    values = {each["name"]: each["value"] for each in facts["tags"]}
    tags = {f"tag_{n}": values.get(name) for n, name in enumerate(recipe.tags.values())}
    return tags | {
        "language": facts["language"], "text": facts["text"], "license": facts["license"],
        "language_probability": facts["language_probability"],
        "bytes": download.get("bytes"), "width": download.get("width"),
        "height": download.get("height"), "similarity": model["similarity"] if model else None,
    }  # fmt: skip


def _pair(facts: dict[str, Any]) -> dict[str, Any]:
    """A row of why.sql. No task is in it: which work is queued is for admins."""
    none = {"outcome": None, "http_status": None, "attempt": None, "signal": None,
            "value": None, "source": None}  # fmt: skip
    download = next((each for each in facts["downloads"] if each["counts"]), none)
    return facts | download | {"removal_id": None, "task_id": None, "task_state": None}
