"""When a model has work, and what it waits for while it has none."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from pairmill.workers.score.model import Model

ENOUGH = 0.95  # of the time with work: then it waits for nothing


class Busy:
    """Watches a model from now until ``close``. spans: begin and end of each part's computation.

    On a CPU the model has work from a part's begin to its end, less what the part waits for
    decoders. A GPU is handed its work ahead: there it is the time between events around each tower,
    which the GPU itself notes. Where the host launches late, gaps between kernels are in it.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.spans: list[tuple[float, float]] = []
        self._waited = {"decode": 0.0, "tokens": 0.0}
        self._events: list[tuple[Any, Any]] = []
        self._plain = {name: getattr(model, name) for name in ("_encode_image", "_encode_text")}
        if model.device.type == "cuda":
            for name, encode in self._plain.items():
                setattr(model, name, self._noted(encode))
        embed = model.embed

        def watched(
            pixels: Iterable[Any], tokens: Callable[[], Any], *others: Any, **named: Any
        ) -> Any:
            begun = time.perf_counter()
            try:
                return embed(
                    self._each(pixels), lambda: self._wait("tokens", tokens), *others, **named
                )
            finally:
                self.spans.append((begun, time.perf_counter()))

        model.embed = watched  # type: ignore[method-assign]

    def close(self) -> None:
        del self._model.embed  # type: ignore[method-assign]
        for name, encode in self._plain.items():
            setattr(self._model, name, encode)

    def _noted(self, encode: Callable[[Any], Any]) -> Callable[[Any], Any]:
        stream = torch.cuda.current_stream(self._model.device)

        def noted(x: Any) -> Any:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record(stream)
            found = encode(x)
            end.record(stream)
            self._events.append((begin, end))
            return found

        return noted

    def _wait(self, what: str, work: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        found = work()
        self._waited[what] += time.perf_counter() - begun
        return found

    def _each(self, items: Iterable[Any]) -> Iterator[Any]:
        source, end = iter(items), object()
        while (item := self._wait("decode", lambda: next(source, end))) is not end:
            yield item

    def seconds(self) -> float:
        """In which the model had work."""
        if self._events:
            torch.cuda.synchronize(self._model.device)
            return sum(begin.elapsed_time(end) for begin, end in self._events) / 1000
        return sum(end - begin for begin, end in self.spans) - sum(self._waited.values())

    def found(
        self, begun: float, ended: float, tasks: Sequence[int], pairs: int, alone: float | None
    ) -> dict[str, Any]:
        """Of so many pairs from ``begun`` to ``ended``: rate, ``device_busy``, ``waits`` and
        ``waits_for``. alone: pairs a second of the towers alone: a GPU had no more work than takes
        that long, and what else is between the events is the host's."""
        rate = pairs / (ended - begun)
        share, waits = self.seconds() / (ended - begun), self.waits(begun, ended, tasks)
        if self._events and alone and rate / alone < share:
            late, share = share - rate / alone, rate / alone
            waits["launches"] = round(waits["launches"] + late, 3)
        return {
            "pairs_per_s": rate,
            "device_busy": share,
            "waits": waits,
            "waits_for": waits_for(share, waits),
        }

    def between(self, tasks: Sequence[int]) -> list[float]:
        """Seconds between two tasks. tasks: how many parts had been computed after each."""
        return [self.spans[part][0] - self.spans[part - 1][1] for part in tasks[:-1]]

    def waits(self, begun: float, ended: float, tasks: Sequence[int]) -> dict[str, float]:
        """Shares of the time from ``begun`` to ``ended`` (time.perf_counter): waiting for decoders,
        and for tokens; between two parts, for the part before to be taken and the next one to be
        read; between two tasks, the first's begin and the last's end too. On a GPU these may run
        beside its work."""
        whole = ended - begun
        inside = sum(end - begin for begin, end in self.spans)
        edges = self.spans[0][0] - begun + ended - self.spans[-1][1] + sum(self.between(tasks))
        found = self._waited | {
            "between parts": whole - inside - edges,
            "between tasks": edges,
            # the host prepares or fetches, and the GPU has nothing
            "launches": max(0.0, inside - sum(self._waited.values()) - self.seconds()),
        }
        return {name: round(max(0.0, seconds) / whole, 3) for name, seconds in found.items()}


def waits_for(busy: float, waits: dict[str, float]) -> str:
    """The one thing of ``waits`` that takes most of the time, unless the model is always busy."""
    return "nothing" if busy >= ENOUGH else max(waits, key=lambda name: waits[name])
