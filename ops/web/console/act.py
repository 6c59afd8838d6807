"""Asking for an action, confirming it, and its end."""

from typing import Any

import psycopg
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pairmill.ops.admin.removal_search import Progress
from pairmill.ops.errors import UserError
from pairmill.ops.web.console import act_on_requests, act_on_tasks, act_on_workers
from pairmill.ops.web.console.actions import Changed, Done, PageAction, Shown
from pairmill.ops.web.console.background import Jobs, PageJob
from pairmill.ops.web.console.confirmations import Confirmations
from pairmill.ops.web.console.layout import page
from pairmill.ops.web.console.visitors import Visitor
from pairmill.workers.errors import WorkerError

ACTIONS = {
    action.name: action
    for action in (*act_on_tasks.ACTIONS, *act_on_workers.ACTIONS, *act_on_requests.ACTIONS)
}


class ActionResult:
    """An action that somebody asked for: what it would do, and then what it did. What the job
    gives is one of these, with ``shown`` or ``done``."""

    def __init__(
        self, action: PageAction, arguments: dict[str, str], shown: Shown | Done, said: str = ""
    ) -> None:
        self.action = action
        self.arguments = arguments
        self.result = shown
        self.said = said


def _action(request: Request) -> PageAction:
    action = ACTIONS.get(request.path_params["action"])
    if action is None:
        raise HTTPException(404)
    return action


def ask(request: Request, visitor: Visitor, form: Any) -> Response:
    """Rehearse an action, and show what it would do. Changes nothing."""
    action = _action(request)
    arguments = action.read(request.query_params)

    def rehearse(connection: psycopg.Connection, progress: Progress) -> ActionResult:
        return ActionResult(action, arguments, action.preview(connection, arguments, progress))

    return _answer(request, visitor, action.title, rehearse)


def confirm(request: Request, visitor: Visitor, form: Any) -> Response:
    """Do what was shown."""
    action = _action(request)
    arguments = action.read(form)
    confirmations: Confirmations = request.app.state.confirmations
    token = str(form.get("confirmation", ""))
    shown = confirmations.shown(token, visitor.key, action.name, action.bound(arguments))

    def do(connection: psycopg.Connection, progress: Progress) -> ActionResult:
        try:
            done = action.run(connection, visitor.actor, arguments, shown, progress)
        except Changed as changed:
            again = action.preview(connection, arguments, progress)
            return ActionResult(action, arguments, again, str(changed))
        return ActionResult(action, arguments, done)

    return _answer(request, visitor, action.title, do)


def work(request: Request, visitor: Visitor, form: Any) -> Response:
    """What was begun: how far it is, or what came of it."""
    jobs: Jobs = request.app.state.jobs
    job = jobs.get(visitor.key, request.path_params["job"])
    return _shown(request, visitor, job)


def _answer(request: Request, visitor: Visitor, title: str, do: Any) -> Response:
    """Begin, and lead to the page of what was begun: a reload neither repeats it nor loses it."""
    jobs: Jobs = request.app.state.jobs
    job = jobs.start(visitor.key, title, do)
    jobs.settle(job)
    return RedirectResponse(f"/work/{job.number}", 303, {"Cache-Control": "no-store"})


def _shown(request: Request, visitor: Visitor, job: PageJob) -> Response:
    if not job.future.done():
        return page(request, visitor, "work", job=job, headers={"Refresh": "2"})
    try:
        asked: ActionResult = job.future.result()
    except (UserError, WorkerError) as refused:
        return page(request, visitor, "refused", 409, title=job.title, said=str(refused))
    if isinstance(asked.result, Done):
        return page(request, visitor, "done", action=asked.action, done=asked.result)
    confirmations: Confirmations = request.app.state.confirmations
    bound = asked.action.bound(asked.arguments)
    token = confirmations.token(
        visitor.key, asked.action.name, bound, asked.result.fingerprint
    )  # fmt: skip
    return page(
        request, visitor, "confirm", action=asked.action, shown=asked.result, said=asked.said,
        arguments=asked.arguments, bound=bound, confirmation=token,
        command=asked.action.command(asked.arguments),
    )  # fmt: skip
