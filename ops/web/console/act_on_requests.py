"""Requests for removal: approve or refuse, with words for who asked; and models: retire."""

from dataclasses import asdict

import psycopg

from pairmill.ops.admin import models, removal_requests
from pairmill.ops.admin.removal import Report
from pairmill.ops.admin.removal_search import Progress
from pairmill.ops.archive.search import find_in_detached
from pairmill.ops.errors import UserError
from pairmill.ops.web.console.actions import (
    Arguments,
    Changed,
    Done,
    PageAction,
    Shown,
    quoted,
    row_number,
    wanted,
)
from pairmill.ops.web.console.confirmations import fingerprint

WHY = ("why", "Why", "textarea", "For the record, and for the answer.")
REASON = (
    "reason", "Reason of the removals", "text",
    "Seen by all who may see reports; the request's number, if this is empty.",
)  # fmt: skip
HOW = (("by_url", "by URL"), ("by_prefix", "by prefix"), ("by_host", "by host"),
       ("by_image", "by image"), ("by_sample", "by SAMPLE_ID"))  # fmt: skip


def _numbers(report: Report) -> dict[str, int]:
    return {"added": report.added, "pairs": report.matching_pairs}


def _said(report: Report, would: str) -> list[str]:
    found = asdict(report)
    by = ", ".join(f"{found[key]:,} {way}" for key, way in HOW if found[key])
    lines = [
        f"{report.added:,} removals {would}added, {report.known:,} known already. They name"
        f" {report.matching_pairs:,} known pairs{f' ({by})' if by else ''}."
    ]
    if report.embeddings:
        lines.append(f"{report.embeddings:,} embeddings {would}deleted.")
    if report.matching_pairs:
        lines.append(
            "Releases, exports and indexes made before still hold them: `pairmill release update`"
            " makes a release's next version, `pairmill index remove` an index's."
        )
    return lines


def _preview_approval(
    connection: psycopg.Connection, given: Arguments, progress: Progress
) -> Shown:
    number = row_number(given, "request", "the request's number")
    report = removal_requests.approve(
        connection, number, "", None, dry_run=True, progress=progress, detached=find_in_detached
    )
    return Shown(_said(report, "would be "), _numbers(report))


def _approve(
    connection: psycopg.Connection, given: Arguments, shown: str, progress: Progress
) -> Done:
    """The search is made once, and not before as well: of a host it reads all pairs. Where it finds
    another number than was confirmed, what was added is taken back."""

    def as_confirmed(report: Report) -> None:
        if fingerprint(_numbers(report)) != shown:
            raise Changed(
                f"there are {report.matching_pairs:,} known pairs now, and not as many as you"
                " confirmed; nothing was removed: look again"
            )

    number = row_number(given, "request", "the request's number")
    report = removal_requests.approve(
        connection, number, given.get("why", ""), given.get("reason"), progress=progress,
        detached=find_in_detached, confirm=as_confirmed,
    )  # fmt: skip
    lines = [f"Request {number} is approved.", *_said(report, "")]
    return Done(lines, report.matching_pairs, asdict(report))


def _preview_refusal(connection: psycopg.Connection, given: Arguments, progress: Progress) -> Shown:
    number = row_number(given, "request", "the request's number")
    request = removal_requests.get(connection, number)
    if request["state"] != "open":
        raise UserError(f"request {number} was {request['state']} already")
    entries = len(request["entries"])
    said = f"Request {number} would be refused: nothing of its {entries:,} entries is removed."
    return Shown([said], {"request": number})


def _refuse(
    connection: psycopg.Connection, given: Arguments, shown: str, progress: Progress
) -> Done:
    number = row_number(given, "request", "the request's number")
    removal_requests.refuse(connection, number, given.get("why", ""))
    return Done([f"Request {number} is refused."], 0)


def _preview_retirement(
    connection: psycopg.Connection, given: Arguments, progress: Progress
) -> Shown:
    model = models.one(connection, wanted(given, "model", "the model's name"))
    discarded = models.retire(connection, model, dry_run=True)
    said = (
        f"{model['name']} would be retired: it scores nothing more, {discarded:,} ready tasks are"
        " discarded. What it scored stays; `pairmill model add` undoes it."
    )
    return Shown([said], {"model": model["model_id"], "discarded": discarded})


def _retire(
    connection: psycopg.Connection, given: Arguments, shown: str, progress: Progress
) -> Done:
    model = models.one(connection, wanted(given, "model", "the model's name"))
    discarded = models.retire(connection, model, dry_run=False)
    said = f"{model['name']} is retired; {discarded:,} ready tasks are discarded."
    return Done([said], discarded)


ACTIONS = (
    PageAction(
        "request.approve", "Approve a request for removal", ("request", "why", "reason"),
        _preview_approval, _approve,
        lambda given: f"pairmill removal request approve {given.get('request', '')}",
        asks=(WHY, REASON), recounts=False, severe=True, back="/requests",
    ),
    PageAction(
        "request.refuse", "Refuse a request for removal", ("request", "why"),
        _preview_refusal, _refuse,
        lambda given: f"pairmill removal request refuse {given.get('request', '')} --why …",
        asks=(WHY,), back="/requests",
    ),
    PageAction(
        "model.retire", "Retire a model", ("model",), _preview_retirement, _retire,
        lambda given: f"pairmill model retire {quoted(given.get('model', ''))}", severe=True,
        back="/data",
    ),
)  # fmt: skip
