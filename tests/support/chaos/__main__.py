"""The command.

PYTHONPATH=tests python -m support.chaos --faults 1000 --urls 20000 --seed 1 [--json]
"""

import argparse
import json
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from support.chaos.client import client
from support.chaos.clocks import real_worker
from support.chaos.plan import Plan
from support.chaos.run import run, table


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser(description="Faults on a line at work; then the books.")
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--urls", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, help="an empty folder for logs and data, which stays")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupt)
    plan = Plan(options.faults, options.urls, options.seed)
    with ExitStack() as stack:
        folder = options.keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-"))
        try:
            report = run(plan, Path(folder))
        except KeyboardInterrupt:
            sys.exit(130)
    print(json.dumps(vars(report), indent=2, default=str) if options.json else table(report))
    sys.exit(bool(report.problems))


if __name__ == "__main__":
    modes = {"client": lambda: client(*sys.argv[2:]), "worker": lambda: real_worker(sys.argv[2:])}
    modes.get(sys.argv[1] if len(sys.argv) > 1 else "", main)()
