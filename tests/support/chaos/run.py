"""A run: work, faults, drain, books."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from pairmill.ops.server.embedded import EmbeddedServer
from support.chaos.books import check, read_logs
from support.chaos.crowd import Crowd
from support.chaos.faults import Chaos
from support.chaos.plan import Plan, Report
from support.chaos.server import Server
from support.line import Web


def not_found(*_: object) -> None:
    """404, and not at once."""
    threading.Event().wait(0.02)


@contextmanager
def deaf_to_usr1() -> Iterator[None]:
    """A process that is so young that it has no handler is not ended by SIGUSR1: it inherits this."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits while things are put away."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def put_away(act: Callable[[], object]) -> None:
    with uninterrupted():
        act()


def run(plan: Plan, folder: Path) -> Report:
    """Everything, in an empty folder; whatever happens, no process stays."""
    report = Report(asdict(plan))
    begun = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(deaf_to_usr1())
        web = stack.enter_context(Web(not_found).running())
        stack.callback(put_away, EmbeddedServer(folder).stop)
        server = Server(folder)
        crowd = Crowd(folder, web.environment, plan.seed)
        stack.callback(put_away, crowd.kill)
        chaos = Chaos(server, crowd, plan, report)
        try:
            chaos.populate()
            chaos.run()
            chaos.drain()
        except TimeoutError as late:
            crowd.problems.append(str(late))
        crowd.kill()
        report.problems += crowd.problems
        report.notes = crowd.notes
        check(server, plan, report)
        read_logs(server, crowd, report)
        server.db.close()
    report.seconds = round(time.monotonic() - begun, 1)
    return report


def table(report: Report) -> str:
    """Faults by kind, and what happened, for people."""
    lines = [f"{sum(sum(c.values()) for c in report.faults.values())} faults in {report.seconds} s"]
    for title, counts in (("fault", report.faults), ("a client's", report.clients)):
        lines.append(f"\n{title:<28}{'times':>7}  what happened")
        for name, found in sorted(counts.items()):
            answers = ", ".join(f"{what} {n}" for what, n in found.most_common())
            lines.append(f"{name:<28}{sum(found.values()):>7}  {answers}")
    lines.append("\nthe server's log")
    lines += [f"{n:>9}  {words[:110]}" for words, n in report.server.most_common()]
    lines.append("\nat the end")
    lines += [f"{what:<28}{value}" for what, value in report.database.items()]
    lines += [f"\nnoted {n} times: {what}" for what, n in report.notes.items()]
    lines += [f"\nPROBLEM  {problem}" for problem in report.problems]
    lines.append(f"\n{len(report.problems)} problems")
    return "\n".join(lines)
