"""Thousands of URLs of a hostile web in one run: one outcome each, the right one, and no hang."""

import json
import os
import subprocess
import sys
from pathlib import Path

SUPPORT = Path(__file__).parents[1] / "support"
COUNT = int(os.environ.get("HOSTILE_URLS", "3000"))  # 45 of each kind
MEMORY = 256  # MB: what the loop and its decoder may take


def test_hostile_web() -> None:
    with subprocess.Popen(
        [sys.executable, SUPPORT / "hostile_web.py"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as web:  # fmt: skip
        assert web.stdin
        assert web.stdout
        ports = web.stdout.readline()
        done = subprocess.run(
            [sys.executable, SUPPORT / "hostile_run.py", str(COUNT)],
            input=ports, capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip
        web.stdin.close()
        caught = json.loads(web.stdout.readline())["caught"]
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["results"] == {"1": COUNT}
    assert found["wrong"] == []
    assert caught == 0  # nobody connected where nobody may
    assert found["budget"] == 0  # every byte of room was given back
    loop = [process[0] for process in found["rss"]]
    assert loop[-1] < loop[0] + 40, found["rss"]
    assert sum(found["peak"]) <= MEMORY, found["peak"]
