"""Scoring on this machine's GPU within a few minutes, as a table: docs/performance.md has a place
for it. bench/on_device.sh finds a Python for it, and brings the packages that are missing.

    bench/on_device.sh [--budget 480] [--models ViT-B-32,…] [--threads N] [--json] [--smoke]

For each model: the towers alone, in each precision, with the change of similarity from a plain
float32 loop; the whole line, from PostgreSQL to PostgreSQL, with the share of the time in which the
model has work and what it waits for; decoding in threads and in processes, alone; then all models
compiled by torch.compile, towers and line. Shares are of the best product of two square matrices in
the same run and precision. Weights are random: the same arithmetic.

One process has the device and is asked for one measurement after another. Each has a share of the
budget, and twice that is its limit: a process that does not answer by then is ended, and begun
anew for the next one. Every measurement is a row, with a number or the reason why there is none.

Standard output has the table, or with --json one object; where OUT names a folder, table.md and
on_device.json in it have both. Ends with 1 where no measurement gave a number.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import typer
from on_device_plan import LOAD_WEIGHT, Group, Row, Step, aim, limit, steps, table

MODELS = "ViT-B-32,ViT-L-14,ViT-B-16-SigLIP"
PRECISIONS = ("bf16", "fp16", "fp32")  # where no process could say which is its own
SMOKE = "ops/demo/model"
BEGIN_SECONDS = 120.0  # at most, of imports and the device's first use
CEILING_SECONDS = 10.0
SPENT = "not measured: the {:.0f} s of the budget were spent"
COMMAND = [sys.executable, str(Path(__file__).with_name("on_device_side.py"))]
BEGUN = time.monotonic()


class Failed(Exception):
    """A measurement gave no number; the reason."""


def note(words: str) -> None:
    """Say how far it is."""
    print(f"{time.monotonic() - BEGUN:6.0f} s  {words}", file=sys.stderr, flush=True)


class Side:
    """The process that has the device, which imports from now on. options: of its start."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.began: dict[str, Any] = {}
        self._process = self._begun()

    def _begun(self) -> "subprocess.Popen[str]":
        self._started = False
        # a group of its own, which ends with it: its decoders, its compilers
        return subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def begin(self, seconds: float) -> None:
        """Have it running; ``began`` says where it runs."""
        if self._process.poll() is not None:
            self._process = self._begun()
        if not self._started:
            self.began = self._asked("start", min(seconds, BEGIN_SECONDS), **self.options)
            self._started = True

    def ask(self, what: str, within: float, **options: Any) -> dict[str, Any]:
        """A measurement. Raises Failed, also where none came within so many seconds."""
        self.begin(within)
        return self._asked(what, within, **options)

    def _asked(self, what: str, within: float, **options: Any) -> dict[str, Any]:
        process = self._process
        assert process.stdin and process.stdout
        with suppress(BrokenPipeError):  # it says so by its end
            print(json.dumps({"what": what} | options), file=process.stdin, flush=True)
        if not select.select([process.stdout], [], [], within)[0]:
            self.end()
            raise Failed(f"not measured: it had not ended after {within:.0f} s")
        line = process.stdout.readline()
        if not line:
            self.end()
            raise Failed(f"failed: its process ended with {process.returncode}")
        answer = json.loads(line)
        if "failed" in answer:
            raise Failed(f"failed: {answer['failed']}")
        found: dict[str, Any] = answer["found"]
        return found

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                if pipe:
                    pipe.close()


@contextmanager
def server() -> Iterator[tuple[str, str]]:
    """The URL of a PostgreSQL of its own, or none; and its version, or the reason."""
    with ExitStack() as stack:
        try:
            from own_server import machine, own_server

            url = stack.enter_context(own_server())[0].url()
            found = url, f"PostgreSQL {machine(url)['postgresql']}"
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            found = "", f"none, so the whole line begins and ends in memory ({said})"
        yield found


def ceilings(side: Side, deadline: float, seconds: float) -> dict[str, float]:
    """FLOP/s by precision, of those that could be measured: on a CPU of the scorer's own alone,
    since others may be emulated, for minutes."""
    found = {}
    known = side.began["precisions"]
    for precision in known if side.began["kind"] == "cuda" else known[:1]:
        within = min(CEILING_SECONDS, deadline - time.monotonic())
        with suppress(Failed):
            found[precision] = side.ask("ceiling", within, precision=precision, seconds=seconds)
    return {name: each["flops"] for name, each in found.items()}


class Run:
    """All measurements of a plan. products: FLOP/s of a matrix product by precision. deadline: of
    time.monotonic, ``budget`` seconds after the beginning."""

    def __init__(
        self,
        side: Side,
        plan: list[Step],
        products: dict[str, float],
        budget: float,
        deadline: float,
        *,
        light: bool,
    ) -> None:
        self._side, self._plan, self._products = side, plan, products
        self._budget, self._deadline, self._light = budget, deadline, light
        self._held: Group | None = None  # what the process has on the device
        self._failed: dict[Group, str] = {}  # what could not be loaded, or compiled
        self._rates: dict[Group, float] = {}

    def rows(self) -> Iterator[Row]:
        """One for each step, in order."""
        for number, step in enumerate(self._plan):
            row = Row(step.model, step.label, reason=self._hindrance(step))
            if not row.reason:
                note(f"{step.model}: {step.label}")
                weights = sum(each.weight for each in self._plan[number:])
                try:
                    row.found = self._measured(step, weights)
                except Failed as error:
                    row.reason = str(error)
                    # the process is another one, or has put the model away
                    self._held = None
            yield row

    def _hindrance(self, step: Step) -> str:
        """Why it need not be tried; empty where nothing hinders it."""
        if step.compiled and self._side.began["kind"] != "cuda":
            return "not measured: models are compiled on a GPU only"
        if self._deadline <= time.monotonic():
            return SPENT.format(self._budget)
        return self._failed.get(step.group, "")

    def _measured(self, step: Step, weights: float) -> dict[str, Any]:
        asked: dict[str, Any] = {"model": step.model, "compiled": step.compiled}
        try:
            if self._held != step.group:
                # with a limit of its own: a large model may take longer than what is asked of it
                self._side.ask("load", self._limit(LOAD_WEIGHT, LOAD_WEIGHT + weights), **asked)
                self._held = step.group
            within = self._limit(step.weight, weights)
            asked |= step.options | {"seconds": aim(within, light=self._light)}
            if step.what == "line":
                asked["alone"] = self._rates.get(step.group)
            found = self._side.ask(step.what, within, **asked)
        except Failed as error:
            if self._held != step.group or (step.compiled and step.what == "towers"):
                # the others of its group would fail by the same
                self._failed[step.group] = str(error)
            raise
        base = self._side.began["precisions"][0]
        product = self._products.get(step.options.get("precision", base))
        if product and "flops_a_pair" in found:
            found["share"] = found["rate"] * found["flops_a_pair"] / product
        if step.what == "towers":
            self._rates.setdefault(step.group, found["rate"])
        return found

    def _limit(self, weight: float, weights: float) -> float:
        return limit(max(0.0, self._deadline - time.monotonic()), weight, weights)


def main(
    budget: Annotated[float, typer.Option("--budget", min=1, help="seconds, of all of it")] = 480,
    models: Annotated[str, typer.Option("--models", help="names, or folders")] = "",
    device: Annotated[str, typer.Option("--device")] = "auto",
    threads: Annotated[int, typer.Option("--threads")] = 0,
    light: Annotated[bool, typer.Option("--smoke", help="small, for a test on a CPU")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    wanted = (models or (SMOKE if light else MODELS)).split(",")
    # one in a test: on busy cores a team of threads waits for its last one at each step
    threads = threads or (1 if light else len(os.sched_getaffinity(0)))
    side = Side(device=device, threads=threads, light=light)
    rows: list[Row] = []
    about: dict[str, Any] = {"threads": threads, "budget_s": budget, "matmul_tflops": {}}
    report = result = ""
    try:
        with server() as (side.options["server"], about["database"]):
            note(f"database: {about['database']}")
            for row in rows_of(side, wanted, about, light=light):
                rows.append(row)
                rows.sort(key=lambda row: wanted.index(row.model))
                report, result = written(about, rows)  # so far: a run may be cut off
    finally:
        side.end()
    print(result if as_json else report)
    if all(row.reason for row in rows):
        raise typer.Exit(1)


def rows_of(side: Side, models: list[str], about: dict[str, Any], *, light: bool) -> Iterator[Row]:
    """One for each measurement that is promised of each model. about: told where it runs."""
    deadline = BEGUN + about["budget_s"]
    try:
        side.begin(about["budget_s"])
    except Failed as error:
        plan = steps(models, PRECISIONS)
        yield from (Row(step.model, step.label, reason=str(error)) for step in plan)
        return
    products = ceilings(side, deadline, aim(CEILING_SECONDS, light=light))
    about |= side.began
    about["matmul_tflops"] = {name: round(each / 1e12, 3) for name, each in products.items()}
    plan = steps(models, side.began["precisions"])
    yield from Run(side, plan, products, about["budget_s"], deadline, light=light).rows()


def written(about: dict[str, Any], rows: list[Row]) -> tuple[str, str]:
    """The table and the object, in the folder OUT too."""
    about["seconds"] = round(time.monotonic() - BEGUN)
    report = f"{headline(about)}\n\n{table(rows)}"
    result = json.dumps(about | {"rows": [vars(row) for row in rows]})
    if folder := os.environ.get("OUT"):
        Path(folder, "table.md").write_text(report + "\n")
        Path(folder, "on_device.json").write_text(result)
    return report, result


def headline(about: dict[str, Any]) -> str:
    """Where and with what, for the paragraph above the table."""
    known = about.get("versions", {}).items()
    versions = ", ".join(f"{name} {each}" for name, each in known if each)
    products = ", ".join(f"{name} {each:g}" for name, each in about["matmul_tflops"].items())
    return (
        f"*{time.strftime('%d %B %Y').lstrip('0')}. {about.get('device', 'no device')},"
        f" {about['threads']} cores; {versions}; database: {about['database']}. Best matrix"
        f" product, TFLOP/s: {products or 'not measured'}. {about['seconds']} s of"
        f" {about['budget_s']:.0f}.*"
    )


if __name__ == "__main__":
    typer.run(main)
