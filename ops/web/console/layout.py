"""Parts that the pages are made of: tables of rows, filters, and the frame around them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pairmill.ops.web.console.readings import Reading
from pairmill.ops.web.console.visitors import Visitor
from pairmill.ops.web.render import render

PAGE = 100  # rows of a page
LARGEST = 2**62
Columns = Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Section:
    """A table with its title. columns: (key, label, kind), of the kinds of admin/parts.html;
    trouble: why it is not up to date; note: a sentence below the title."""

    title: str
    columns: Columns
    rows: Sequence[Mapping[str, Any]]
    empty: str = "Nothing here."
    trouble: str = ""
    note: str = ""
    age: float = 0.0


def section(title: str, columns: Columns, found: Reading, empty: str, note: str = "") -> Section:
    return Section(title, columns, found.rows, empty, found.trouble, note, found.age)


def page(
    request: Request, visitor: Visitor | None, template: str, status: int = 200, **values: Any
) -> Response:
    """A page of templates/admin, kept by no cache."""
    headers = {"Cache-Control": "no-store"} | values.pop("headers", {})
    return render(
        request, f"admin/{template}.html", status, headers, visitor=visitor,
        has_sessions=request.app.state.visitors.has_sessions, **values,
    )  # fmt: skip


def whole(request: Request, name: str) -> int | None:
    """A parameter that is the number of a row; None: it is not given. Raises HTTPException."""
    text = request.query_params.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) < LARGEST):
        raise HTTPException(400, f"{name} is a number")
    return int(text)


def path_number(request: Request) -> int:
    """The number in the path. Raises HTTPException 404 where no row has it."""
    number = int(request.path_params["number"])
    if number >= LARGEST:
        raise HTTPException(404)
    return number


def given(request: Request, *names: str) -> dict[str, str | None]:
    """Parameters that are texts; None: not given, or empty."""
    return {name: request.query_params.get(name) or None for name in names}


def older(
    request: Request, rows: Sequence[Mapping[str, Any]], key: str, limit: int = PAGE
) -> str | None:
    """The address of the next page of a list by number; None: this is the last one."""
    if len(rows) < limit:
        return None
    kept = [(k, v) for k, v in request.query_params.multi_items() if k != "before"]
    return "?" + urlencode([*kept, ("before", rows[-1][key])])
