"""The process of bench/on_device.py that has the device: a question is a line of JSON on its
standard input, and a measurement the line that answers it. It may be ended at any time."""

import gc
import json
import os
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import without_transformers as _first  # noqa: F401

# isort: split
import torch
from score_sides import Flops, Options, Side, matmul_ceiling, side
from score_stages import (
    change,
    compute_alone,
    decode_alone,
    decode_processes,
    from_memory,
    similarities,
)
from thumbnails import thumbnails

from pairmill.workers.errors import Refused, WorkerError
from pairmill.workers.score import device_lost
from pairmill.workers.score.compiled import compile_now
from pairmill.workers.score.loading import PRECISIONS, device_of, dtype_of
from pairmill.workers.score.model import open_clip
from pairmill.workers.score.worker import POSITIONS_PER_PART, Score

COMPARED = {"cpu": 32, "cuda": 512}  # pairs whose similarities are compared
ASSUMED = 100.0  # pairs/s, where the towers could not be measured
FILLED = 1_500  # pairs a second, about, that a database is filled with before a run
MOST_PAIRS = 20_000


@dataclass
class Held:
    """A model on the device. plain: similarities of its first pairs by a plain float32 loop."""

    key: tuple[str, bool]
    side: Side
    flops: Flops
    plain: list[float] = field(repr=False)
    compiled_s: float | None = None


class Measuring:
    """What the process keeps between two questions. server: the URL of a server to make databases
    on; empty: none. light: smaller, for a test."""

    def __init__(self, device: str, threads: int, light: bool, server: str) -> None:
        self.device = device_of(device)
        self.base = self._name(dtype_of("auto", self.device))
        self._server, self._threads, self._light = server, threads, light
        self._databases = 0
        self._held: Held | None = None
        torch.set_num_threads(threads)

    def answer(self, what: str, options: dict[str, Any]) -> dict[str, Any]:
        """One of the measurements below, by name."""
        measure = {
            "ceiling": self.ceiling, "load": self.load, "towers": self.towers, "line": self.line,
            "decode": self.decode,
        }[what]  # fmt: skip
        found: dict[str, Any] = measure(**options)
        return found

    def where(self) -> dict[str, Any]:
        """Where it runs. precisions: the scorer's own first."""
        cuda = self.device.type == "cuda"
        names = ("torch", "open_clip_torch", "pillow", "psycopg")
        return {
            "device": torch.cuda.get_device_name(self.device) if cuda else "cpu",
            "kind": self.device.type,
            "precisions": [self.base, *(p for p in ("bf16", "fp16", "fp32") if p != self.base)],
            "versions": {name: version(name) for name in names} | {"cuda": torch.version.cuda},
        }

    def ceiling(self, precision: str, seconds: float) -> dict[str, Any]:
        """FLOP/s of the best product of two square matrices."""
        size = 256 if self._light else None
        return {"flops": matmul_ceiling(self.device, PRECISIONS[precision], seconds, size)}

    def load(self, model: str, compiled: bool) -> dict[str, Any]:
        """A model with random weights, or a folder's."""
        self._model(model, compiled)
        return {}

    def towers(self, model: str, compiled: bool, seconds: float, precision: str) -> dict[str, Any]:
        """The towers alone, on images and tokens that are on the device."""
        held = self._model(model, compiled)
        s = held.side
        try:
            if precision != self.base:
                s.recast(PRECISIONS[precision])
            if compiled and held.compiled_s is None:
                begun = time.perf_counter()
                compile_now(s.model)
                held.compiled_s = time.perf_counter() - begun
            rate, _ = compute_alone(s, self._options(compiled, seconds))
            held.flops.total = 0
            changed = change(s, held.plain)
            return {
                "rate": rate,
                "change": changed,
                "compiled_s": held.compiled_s,
                "flops_a_pair": held.flops.total / len(held.plain),
            }
        finally:
            if precision != self.base:
                s.recast(PRECISIONS[self.base])

    def line(
        self, model: str, compiled: bool, seconds: float, alone: float | None
    ) -> dict[str, Any]:
        """From a database to a database, or without one from memory. alone: pairs a second of the
        towers alone, where they were measured."""
        held = self._model(model, compiled)
        o = self._options(compiled, seconds)
        count = max(64, int(min((alone or ASSUMED) * seconds, FILLED * seconds, MOST_PAIRS)))
        if self._server:
            found = self._from_database(held, o, count, alone)
        else:
            held.flops.total = 0
            found = from_memory(held.side, o, self._decoders(held.side), count, alone)
        rate = found.pop("pairs_per_s")
        kept = ("pairs", "device_busy", "waits", "waits_for", "between_tasks_ms", "stages")
        return {"rate": rate, "flops_a_pair": held.flops.total / count} | {
            key: found[key] for key in kept if key in found
        }

    def decode(self, model: str, compiled: bool, seconds: float, processes: bool) -> dict[str, Any]:
        """Images, and tokens of their texts."""
        s = self._model(model, compiled).side
        workers = self._decoders(s)
        measure = decode_processes if processes else decode_alone
        count = 64 if self._light else POSITIONS_PER_PART
        return {"rate": measure(s, workers, seconds, count), "workers": workers}

    def _from_database(
        self, held: Held, o: Options, count: int, alone: float | None
    ) -> dict[str, Any]:
        from own_server import database_at
        from score_line import database_alone, end_to_end

        from support.database import Database
        from support.scoring import add_model

        self._databases += 1
        name = f"device_{os.getpid()}_{self._databases}"
        with closing(Database(database_at(self._server, name))) as db:
            add_model(db, held.side.model)
            read, write = database_alone(db, held.side, 500 if self._light else 2_000)
            held.flops.total = 0
            found = end_to_end(db, held.side, o, count, alone)
        return found | {"stages": {"read": round(read), "write": round(write)}}

    def _model(self, name: str, compiled: bool) -> Held:
        if self._held is None or self._held.key != (name, compiled):
            self.forget()
            if not Path(name).is_dir() and name not in open_clip.list_models():
                raise Refused(f"open_clip has no model {name}, and there is no such folder")
            s = side(name, self._options(compiled, 1.0), self._thumbnails)
            if self._light:
                s.model.batch_size = 4
            plain = similarities(s, 4 if self._light else COMPARED[self.device.type])
            self._held = Held((name, compiled), s, Flops(s.clip, s.model), plain)
        return self._held

    @cached_property
    def _thumbnails(self) -> list[bytes]:
        return thumbnails(3) if self._light else thumbnails(16, 4, 4)

    def _options(self, compiled: bool, seconds: float) -> Options:
        dtype = PRECISIONS[self.base]
        return Options(self.device, dtype, compiled, None, self._threads, seconds, 1)

    def _decoders(self, s: Side) -> int:
        return Score(s.model, threads=self._threads)._decoders

    @staticmethod
    def _name(dtype: torch.dtype) -> str:
        return next(name for name, each in PRECISIONS.items() if each == dtype)

    def forget(self) -> None:
        """Free the device's memory, and programs: torch keeps eight, of all models together."""
        if self._held and self._held.key[1]:
            torch.compiler.reset()
        self._held = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    measuring = None
    for line in sys.stdin:
        question = json.loads(line)
        lost = False
        try:
            what = question.pop("what")
            if what == "start":
                measuring = Measuring(**question)
                answer = {"found": measuring.where()}
            else:
                assert measuring, "the first question is start"
                answer = {"found": measuring.answer(what, question)}
        except Exception as error:
            said = " ".join(str(error).split())[:300]
            kind = "" if isinstance(error, WorkerError) else f"{type(error).__name__}: "
            answer = {"failed": kind + said}
            # after such an error of a GPU's every later call fails too
            lost = isinstance(error, torch.AcceleratorError) or "stopped working" in said
            if isinstance(error, RuntimeError) and device_lost.short_of_memory(error):
                lost = False
        if "failed" in answer and measuring:
            measuring.forget()  # outside the handler, whose traceback holds tensors
        print(json.dumps(answer), file=answers, flush=True)
        if lost:
            break


if __name__ == "__main__":
    main()
