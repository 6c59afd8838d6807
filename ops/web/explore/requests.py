"""Asking for removal: a form that needs no account, and a page of its own for each request.

A request is shown to whoever has its token, 192 random bits of which the database has the sha256
alone; its number shows nothing. Who asked, and why, is for admins, and never shown again.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from pairmill.ops.admin.removal_entries import parse
from pairmill.ops.errors import UserError
from pairmill.ops.web.explore.explore_calls import AskedRemoval, ExploreCalls
from pairmill.ops.web.explore.explore_settings import ExploreSettings
from pairmill.ops.web.explore.posted import Posted, posted
from pairmill.ops.web.failures import wants_json
from pairmill.ops.web.limits import Rate
from pairmill.ops.web.render import render
from pairmill.ops.web.uploads import UploadedImage
from pairmill.workers.safe_text import safe

RATE = "3/minute;20/hour;60/day"  # of a client's network
TOKEN_BYTES = 24
MOST_ENTRIES = 100  # this and the next four as api.request_removal_v1 has them
MOST_CONTACT, MOST_REASON = 300, 4000
MOST_LINES, MOST_ATTACHED = 500, 15_000
NO_TEXT = "the attachment is no text: only plain text in UTF-8 is taken"
# nobody's cache and no search engine keeps the page of a request
PRIVATE = {"Cache-Control": "no-store", "X-Robots-Tag": "noindex, nofollow"}
FIELDS = ("urls", "pages", "host", "below", "samples", "reason", "contact", "attachment")


@dataclass(frozen=True)
class Wish:
    """A form as it was read: entries, as `pairmill removal add` takes them, or what is wrong with
    its fields, by name."""

    entries: list[str]
    of_pages: bool
    contact: str
    reason: str
    attachment: list[str]
    wrong: dict[str, str] = field(default_factory=dict)


def routes(settings: ExploreSettings) -> list[BaseRoute]:
    """/remove, the form; /request/TOKEN, the state of a request."""
    rate = Rate(RATE)

    def form(request: Request) -> Response:
        given = request.query_params
        values = {"urls": given.get("url", ""), "host": given.get("host", "")}
        return _form(request, settings, values | {"samples": given.get("id", "")})

    async def ask(request: Request) -> Response:
        if settings.calls is None:
            raise HTTPException(404, _elsewhere(settings))
        rate.check(request)
        sent = await posted(request)
        return await run_in_threadpool(_ask, request, settings, settings.calls, sent)

    def state(request: Request) -> Response:
        calls = settings.calls
        token = request.path_params["token"]
        found = calls.removal_request(_digest(token)) if calls and len(token) < 100 else None
        if found is None:
            # the same for a token that never was and for none that could be
            raise HTTPException(404, "No request has this address: look at the one that you kept.")
        return _state(request, found)

    return [
        Route("/remove", form, methods=["GET"]),
        Route("/remove", ask, methods=["POST"]),
        Route("/request/{token}", state, methods=["GET"]),
    ]


def _form(
    request: Request,
    settings: ExploreSettings,
    values: dict[str, str],
    wrong: dict[str, str] | None = None,
) -> Response:
    return render(
        request,
        "explore/remove.html",
        400 if wrong else 200,
        {"Cache-Control": "no-store"},
        values={name: shown_lines(values.get(name, "")) for name in FIELDS},
        wrong=wrong or {},
        taken=settings.calls is not None,
        elsewhere=_elsewhere(settings),
    )


def shown_lines(text: str) -> str:
    """A text of several lines as a form shows it again: each line safe, the ends of lines kept."""
    return "\n".join(map(safe, text.splitlines()))


def _elsewhere(settings: ExploreSettings) -> str:
    where = f": write to {settings.contact}" if settings.contact else ""
    return f"Requests are not taken by this page{where}."


def _ask(
    request: Request, settings: ExploreSettings, calls: ExploreCalls, sent: Posted
) -> Response:
    wish = read_wish(sent, settings)
    if wish.wrong:
        if wants_json(request):
            return JSONResponse({"error": "the form is not complete", "fields": wish.wrong}, 400)
        return _form(request, settings, sent.fields, wish.wrong)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    number, due = calls.request_removal(
        wish.entries,
        of_pages=wish.of_pages,
        requester=wish.contact,
        evidence=wish.reason,
        attachment=wish.attachment,
        token_sha256=_digest(token),
    )
    address = f"/request/{token}"
    if wants_json(request):
        told = {"request": number, "status": address, "due": due.isoformat()}
        return JSONResponse(told, 201, PRIVATE)
    return RedirectResponse(f"{address}?new=1", 303, PRIVATE)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def read_wish(sent: Posted, settings: ExploreSettings) -> Wish:
    """The form's fields, checked. Blocks while an image is decoded."""
    wrong: dict[str, str] = {}
    of_pages = bool(sent.field("pages"))
    entries: list[str] = []

    def take(name: str, make: Callable[[], Iterable[str]]) -> None:
        try:
            entries.extend(make())
        except UserError as problem:
            wrong[name] = str(problem)

    lines, words = sent.field("urls").splitlines(), sent.field("samples").replace(",", " ").split()
    take("urls", lambda: [_url(line) for line in lines if line.strip()])
    if host := sent.field("host"):
        take("host", lambda: [_host(f"*.{host}" if sent.field("below") else host)])
    take("samples", lambda: [_sample(word) for word in words])
    if image := sent.files.get("image"):
        take("image", lambda: entries_of_image(settings.decoder.read(image)))
    if not entries and not wrong:
        wrong["urls"] = "name at least one address, host, SAMPLE_ID or image"
    if len(entries) > MOST_ENTRIES:
        wrong["urls"] = f"a request names at most {MOST_ENTRIES}: send another for the others"
    if of_pages and any("://" not in entry or entry.endswith("*") for entry in entries):
        wrong["pages"] = "of pages only whole addresses can be named: leave the other fields empty"
    contact, reason = sent.field("contact"), sent.field("reason")
    if not 1 <= len(contact) <= MOST_CONTACT:
        wrong["contact"] = f"say how to answer you, in at most {MOST_CONTACT} characters"
    if not 1 <= len(reason) <= MOST_REASON:
        wrong["reason"] = f"say why, in at most {MOST_REASON:,} characters"
    attachment: list[str] = []
    try:
        attachment = _attached(sent)
    except UserError as problem:
        wrong["attachment"] = str(problem)
    return Wish(list(dict.fromkeys(entries)), of_pages, contact, reason, attachment, wrong)


def _url(line: str) -> str:
    entry = parse(line.strip())
    if entry.kind not in ("url", "prefix"):
        raise UserError(f"{line.strip()[:200]!r} is no address: it begins with http:// or https://")
    return entry.source


def _host(given: str) -> str:
    entry = parse(given)
    if entry.kind != "host":
        raise UserError(f"{given[:200]!r} is no host: example.org, without http:// and slashes")
    return entry.source


def _sample(word: str) -> str:
    return parse(f"sample:{word}").source


def entries_of_image(image: UploadedImage) -> list[str]:
    """What names an image in a list of removals: its file's sha256, and of one that is not flat its
    PDQ, which finds copies of other sizes and qualities, and its dHash."""
    found = [image.sha256.hex()]
    looks = ([f"pdq:{image.pdq.hex()}"] if image.pdq else []) + [f"dhash:{image.dhash}"]
    for look in looks:
        try:
            found.append(parse(look).source)
        except UserError:  # of a flat image: it would name all other flat ones
            continue
    return found


def _attached(sent: Posted) -> list[str]:
    """The text that was pasted or sent as a file, in lines. Raises UserError for what is none."""
    text = sent.field("attachment")
    if body := sent.files.get("file"):
        try:
            text = f"{text}\n{body.decode('utf-8-sig')}"
        except UnicodeDecodeError:
            raise UserError(
                "the attachment is no text: only plain text in UTF-8 is taken"
            ) from None
        if "\x00" in text:
            raise UserError("the attachment is no text: only plain text in UTF-8 is taken")
    lines = text.strip().splitlines()
    if len(lines) > MOST_LINES or sum(map(len, lines)) > MOST_ATTACHED:
        raise UserError(
            f"the attachment has more than {MOST_LINES} lines or {MOST_ATTACHED:,} characters:"
            " send what matters, or say where the rest is"
        )
    return lines


def _state(request: Request, found: AskedRemoval) -> Response:
    if wants_json(request):
        told = {
            "request": found.request_id, "state": found.state, "entries": found.entries,
            "of_pages": found.of_pages, "received": found.received_at.isoformat(),
            "due": found.due_at.isoformat(), "answer": found.why, "pairs": found.pairs,
            "decided": found.decided_at and found.decided_at.isoformat(),
        }  # fmt: skip
        return JSONResponse(told, headers=PRIVATE)
    new = request.query_params.get("new") == "1"
    address = str(request.url.replace(query=""))
    return render(
        request, "explore/request.html", headers=PRIVATE, asked=found, new=new, address=address,
        late=found.due_at < datetime.now(UTC),
    )  # fmt: skip
