"""What a person sees of a run of `pairmill fetch`."""

from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pairmill.ops.output import plain_console
from pairmill.workers.safe_text import safe, say


def said(outcomes: dict[str, int]) -> str:
    ordered = sorted(outcomes.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count:,}" for name, count in ordered) or "no rows"


class FetchProgress:
    """A bar on a terminal, else a line for each shard; on standard error."""

    def __init__(self, total: int | None) -> None:
        self._console = plain_console(stderr=True)
        self._bar = Progress(
            TextColumn("fetching", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, rate="")

    def __enter__(self) -> "FetchProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def row(self) -> None:
        speed = self._bar.tasks[0].speed
        self._bar.update(self._task, advance=1, rate=f"{speed:,.0f}/s" if speed else "")

    def shard(self, number: int, stats: dict[str, Any]) -> None:
        if not self._console.is_terminal:
            counts = said(stats["status_dict"])
            say(f"shard {number:05}: {counts}; {stats['duration']:,.0f} s", err=True)

    def say(self, sentence: str) -> None:
        """A sentence beside the bar."""
        self._console.print(safe(sentence), soft_wrap=True)
