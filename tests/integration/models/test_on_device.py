"""bench/on_device.sh, as it is run beside a GPU, small and on a CPU; and the watch over a model's work."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))

import score_busy
from score_sides import Flops

from pairmill.workers.score.model import load
from pairmill.workers.score.model import open_clip as clip

ROOT = Path(__file__).parents[3]
LABELS = [
    "towers, fp32", "whole line, fp32", "decode in threads", "decode in processes", "towers, bf16",
    "towers, fp16", "towers, fp32, compiled", "whole line, fp32, compiled",
]  # fmt: skip
MEASURED = LABELS[:6]


def test_each_promised_row_has_a_number_or_a_reason(tmp_path: Path) -> None:
    """The script itself: a Python, packages, a PostgreSQL, a model, and one that does not exist."""
    models = "ops/demo/model,no-such-model"
    script = ["bash", str(ROOT / "bench/on_device.sh"), "--smoke", "--models", models]
    known = os.environ | {"PYTHON": sys.executable, "OUT": str(tmp_path)}
    run = subprocess.run(script, env=known, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout == (tmp_path / "table.md").read_text()
    cells = [line.strip("| ").split(" | ") for line in run.stdout.splitlines() if line[:1] == "|"]
    rows = {(row[0], row[1]): row[2:] for row in cells[2:]}
    assert list(rows) == [(model, label) for model in models.split(",") for label in LABELS]
    for (model, label), (rate, share, busy, *_) in rows.items():
        number = model != "no-such-model" and label in MEASURED
        assert bool(re.fullmatch(r"[\d,]+", rate)) == number, (model, label, rate)
        assert (busy != "") == (not number or label == "whole line, fp32")
        assert (share != "") == (not number or label in MEASURED[:2])
    missing = rows["no-such-model", LABELS[0]][-1]
    assert missing == "failed: open_clip has no model no-such-model, and there is no such folder"
    result = json.loads((tmp_path / "on_device.json").read_text())
    found = {
        row["label"]: row["found"] for row in result["rows"] if row["model"] != "no-such-model"
    }
    assert result["database"].startswith("PostgreSQL ")
    assert found["towers, fp32"]["change"]["max"] < 1e-5
    assert 0 < found["towers, fp16"]["change"]["max"] < 2e-2
    assert found["whole line, fp32"]["waits_for"] in {
        "nothing",
        *found["whole line, fp32"]["waits"],
    }


def test_operations_are_counted_alike_in_any_precision() -> None:
    """The counter's copy stayed in float32, and refused what the model takes in bf16: every tower in
    half precision failed in a process that had not seen float32 before."""
    loaded = load(str(ROOT / "ops/demo/model"), device="cpu", precision="bf16")
    plain = clip.create_model(f"local-dir:{ROOT / 'ops/demo/model'}")
    counted = []
    for model, towers in (
        (loaded, plain),
        (load(str(ROOT / "ops/demo/model"), device="cpu"), plain),
    ):
        flops = Flops(towers, model)
        model.encode_texts(["a text"])
        pixels = torch.zeros((2, 64, 64, 3), dtype=torch.uint8)
        with torch.inference_mode():
            model._image(pixels)
        counted.append(flops.total)
    assert counted[0] == counted[1] > 2 * 2 * 64 * 192 * 96  # two images' first layer alone


# ---- the watch -----------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(at=0.0)
    monkeypatch.setattr(score_busy.time, "perf_counter", lambda: now.at)
    return now


def model(clock: SimpleNamespace, device: str) -> Any:
    """One whose towers take 3 s each."""

    def tower(x: Any) -> Any:
        clock.at += 3
        return x

    made = SimpleNamespace(device=torch.device(device), _encode_image=tower, _encode_text=tower)

    def embed(pixels: Any, tokens: Any) -> None:
        for x in pixels:
            made._encode_image(x)
        made._encode_text(tokens())

    made.embed = embed
    return made


def two_parts(clock: SimpleNamespace, watched: Any) -> None:
    """1 s before each part, its decoders take 2 s, its tokens half a second."""

    def pixels() -> Iterator[int]:
        clock.at += 2
        yield 1

    def tokens() -> None:
        clock.at += 0.5

    for _ in range(2):
        clock.at += 1
        watched.embed(pixels(), tokens)


def test_waiting_for_decoders_is_no_work_of_the_model(clock: SimpleNamespace) -> None:
    """It happens within the computation of a part: a model that starved would look busy."""
    watched = model(clock, "cpu")
    before = dict(vars(watched))
    busy = score_busy.Busy(watched)
    two_parts(clock, watched)
    assert busy.seconds() == 12
    waits = busy.waits(0.0, clock.at, [2])
    assert waits == {
        "decode": round(4 / 19, 3), "tokens": round(1 / 19, 3), "between parts": round(1 / 19, 3),
        "between tasks": round(1 / 19, 3), "launches": 0,
    }  # fmt: skip
    assert score_busy.waits_for(12 / 19, waits) == "decode"
    assert score_busy.waits_for(0.99, waits) == "nothing"
    busy.close()
    assert vars(watched)["_encode_image"] is before["_encode_image"]


def test_a_gpu_says_itself_how_long_it_had_work(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host hands it work ahead: its own clock would say that it launched, and no more."""

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: str) -> None:
            assert stream == "stream of cuda:1"
            self.at = clock.at

        def elapsed_time(self, end: "Event") -> float:
            return 500 * (end.at - self.at)  # ms; half of the host's time

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _device: None)
    watched = model(clock, "cuda:1")
    busy = score_busy.Busy(watched)
    two_parts(clock, watched)
    assert busy.seconds() == 6
    assert busy.waits(0.0, clock.at, [2])["launches"] == round(6 / 19, 3)
    # the towers alone take 1.9 of the 19 s for two pairs: the rest was between their kernels
    found = busy.found(0.0, clock.at, [2], 2, 20 / 19)
    assert (found["pairs_per_s"], round(found["device_busy"], 3)) == (2 / 19, 0.1)
    assert found["waits"]["launches"] == round(12 / 19 - 0.1, 3)
    assert found["waits_for"] == "launches"
    slower = busy.found(0.0, clock.at, [2], 2, 0.2)
    assert slower["device_busy"] == busy.found(0.0, clock.at, [2], 2, None)["device_busy"] == 6 / 19
