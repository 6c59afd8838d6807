"""The score worker's stages: side by side, bounded, and ended in order, whatever happens."""

import os
import signal
import threading
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch
import trio
import trio.testing

from pairmill.ops.demo import model as demo
from pairmill.ops.demo.drawings import attributes, caption
from pairmill.ops.demo.model.train import HELD_OUT, thumbnail
from pairmill.schema.outcomes import ScoreOutcome
from pairmill.workers import daemon
from pairmill.workers.connected import root_cause
from pairmill.workers.errors import Refused, TaskFailed
from pairmill.workers.metrics import Metrics
from pairmill.workers.score import worker
from pairmill.workers.score.calls import ScoreQueue
from pairmill.workers.score.heads import Head, Tags
from pairmill.workers.score.layers import Layer
from pairmill.workers.score.model import Embeddings, Model, Watch, load
from pairmill.workers.score.pipeline import Pipeline, ScoredPart, Thumbnails
from pairmill.workers.score.taggers import NamedHead
from pairmill.workers.score.worker import Score, score_rows, tag_rows
from support.database import Database
from support.scoring import add_model, hash_of, to_score

PATIENCE = 60.0
IMAGES = [thumbnail(HELD_OUT + n) for n in range(50)]
TEXTS = [caption(HELD_OUT + n, attributes(HELD_OUT + n)) for n in range(50)]


@pytest.fixture(scope="module")
def loaded() -> Model:
    return load(str(demo.PATH), device="cpu")


@pytest.fixture
def model(loaded: Model) -> Iterator[Model]:
    """The demo's; what a test does to its towers is undone."""
    kept = dict(vars(loaded))
    yield loaded
    vars(loaded).update(kept)


def first(dims: int) -> Head:
    """A head that says the first number of an embedding."""
    weight = np.zeros((1, dims), np.float32)
    weight[0, 0] = 1
    return Head([Layer(weight, np.zeros(1, np.float32))])


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class Once(Score):
    """Ends as an operator ends it, after one task."""

    async def work(self, job: daemon.Job) -> None:
        await super().work(job)
        stop()


def ready(db: Database, model: Model, count: int) -> list[tuple[bytes, str]]:
    """A batch that waits for its scores, by position; of ten pairs one has no image, and one a
    text of 202 tokens."""
    images = [b"no image" if n % 10 == 7 else IMAGES[n % 50] for n in range(count)]
    texts = [TEXTS[n % 50] if n % 10 else f"{n} " + "word " * 200 for n in range(count)]
    add_model(db, model)
    to_score(db, images, texts)
    ordinals = db.rows("select url from mill.pair order by n")
    order = [int(url.rpartition("/")[2].removesuffix(".jpg")) for (url,) in ordinals]
    return [(images[i], texts[i]) for i in order]


def serve(db: Database, kind: Score, metrics: Metrics | None = None) -> None:
    daemon.run(partial(daemon.serve, kind, db.login("score"), metrics=metrics))
    db.accept_all()


def parts_of(count: int, size: int) -> list[Thumbnails]:
    return [
        Thumbnails(start, list(range(start, start + size)), TEXTS[:size], IMAGES[:size])
        for start in range(0, count, size)
    ]


def metric(metrics: Metrics, outcome: str) -> float | None:
    labels = {"kind": "score", "outcome": outcome}
    return metrics.registry.get_sample_value("pairmill_worker_rows_total", labels)


def assert_scored_as(db: Database, model: Model, pairs: list[tuple[bytes, str]]) -> None:
    """Every pair is there once, with what the model's convenience says of it."""
    rows = db.rows(
        "select s.n, s.outcome, s.similarity, e.image from mill.score s"
        " left join mill.embedding e using (batch_id, n, attempt, model_id) order by s.n"
    )
    assert [n for n, *_ in rows] == list(range(len(pairs)))
    expected = model.score([image for image, _ in pairs], [text for _, text in pairs])
    assert [row[1] for row in rows] == expected.outcomes.tolist()
    for (_, outcome, similarity, image), ours, embedding in zip(
        rows, expected.similarity, expected.image_embedding, strict=True
    ):
        if outcome == ScoreOutcome.SCORED:
            assert similarity == pytest.approx(ours, abs=1e-5)
            read = np.frombuffer(image, np.float16).astype(float)
            assert np.abs(read - embedding.astype(float)).max() < 1e-3
        else:
            assert similarity is None


def test_a_batch_in_parts_is_scored_as_one(
    db: Database, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "POSITIONS_PER_PART", 20)
    pairs = ready(db, model, 90)
    metrics = Metrics("score")
    serve(db, Once(model, threads=2), metrics)
    assert_scored_as(db, model, pairs)
    assert db.rows("select state from mill.task where kind = 'score'") == [("done",)]
    assert db.value("select count(distinct submission_id) from mill.score") == 5
    assert metric(metrics, "scored") == 81
    assert metric(metrics, "broken_thumbnail") == 9
    assert metric(metrics, "text_truncated") == 9


def test_stopped_in_the_middle_keeps_what_was_submitted(
    db: Database, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "POSITIONS_PER_PART", 20)
    pairs = ready(db, model, 90)
    kind = Score(model)
    submitted, plain = threading.Event(), model.embed
    calls = 0

    def embed(*arguments: object) -> Embeddings:
        nonlocal calls
        calls += 1
        if calls == 3:
            assert submitted.wait(PATIENCE)
            stop()
            while True:  # as long as a batch of a large model takes: only the beat ends it
                arguments[3].beat()  # type: ignore[attr-defined]
        return plain(*arguments)  # type: ignore[arg-type]

    def submit(queue: ScoreQueue, lease_id: int, part: int, *counts: int) -> int:
        done = plain_submit(queue, lease_id, part, *counts)
        if part == 20:
            submitted.set()
        return done

    plain_submit = ScoreQueue.submit_score
    monkeypatch.setattr(ScoreQueue, "submit_score", submit)
    model.embed = embed  # type: ignore[method-assign, assignment]
    serve(db, kind)
    assert db.value("select count(*) from mill.score") == 40
    leases = "select ended_as from mill.lease join mill.task using (task_id) where kind = 'score' order by lease_id"
    assert db.rows(leases) == [("released",)]
    assert db.rows("select state, attempts from mill.task where kind = 'score'") == [("ready", 0)]
    model.embed = plain  # type: ignore[method-assign]
    serve(db, Once(model))
    assert_scored_as(db, model, pairs)
    assert db.rows(leases) == [("released",), ("completed",)]


def test_device_that_vanishes_hands_the_task_back_and_ends_the_worker(
    db: Database, model: Model
) -> None:
    ready(db, model, 20)

    def gone(_: torch.Tensor) -> torch.Tensor:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    model._encode_image = gone
    with pytest.raises(Refused, match=r"the device cpu stopped working; .*unspecified launch"):
        serve(db, Score(model))
    assert db.rows("select state, attempts from mill.task where kind = 'score'") == [("ready", 0)]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("Tried to allocate 20.00 GiB. More words."),
        torch.AcceleratorError("CUDA error: out of memory\nMore words."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["torch's allocator", "the driver", "cuBLAS"],
)
def test_memory_that_is_short_halves_the_batches_and_says_so(
    model: Model, error: RuntimeError
) -> None:
    """The driver's and cuBLAS's words for it were taken for a device that is gone."""
    said: list[str] = []
    expected = model.score(IMAGES, TEXTS)
    plain, sizes = model._encode_image, []

    def short(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > 9:
            raise error
        found: torch.Tensor = plain(batch)
        return found

    model._encode_image = short
    pixels = [model.preprocessor.decode(IMAGES)]
    embedded = model.embed(pixels, lambda: model.tokenizer(TEXTS), watch=Watch(said.append))
    assert np.abs(embedded.similarity - expected.similarity).max() < 1e-5
    assert model.batch_size == 8
    assert said == ["out of memory on cpu: batches of 8 from now on"]
    assert sum(size for size in sizes if size <= 9) == 50


def test_one_row_that_does_not_fit_fails_the_task_with_a_sentence(
    db: Database, model: Model
) -> None:
    ready(db, model, 20)

    def short(_: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("Tried to allocate 20.00 GiB. More words.")

    model._encode_image = short

    class FailsOnce(Score):
        async def work(self, job: daemon.Job) -> None:
            try:
                await super().work(job)
            finally:
                stop()

    serve(db, FailsOnce(model))
    (reason,) = db.rows("select reason from mill.task where kind = 'score'")[0]
    assert reason == "one row alone does not fit into memory of cpu: Tried to allocate 20"


def test_reading_and_decoding_go_on_while_the_model_computes_but_not_far(model: Model) -> None:
    """Held, the model sees the next two parts read and the next one decoded, and no more."""
    parts, sent, written = parts_of(80, 10), [], []
    held, plain = threading.Event(), model.embed

    def embed(*arguments: object) -> Embeddings:
        assert held.wait(PATIENCE)
        return plain(*arguments)  # type: ignore[arg-type]

    model.embed = embed  # type: ignore[method-assign, assignment]

    async def read(target: "trio.MemorySendChannel[Thumbnails]") -> None:
        for part in parts:
            sent.append(part.part)
            await target.send(part)

    async def write(part: ScoredPart) -> None:
        written.append(part.part)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(pipeline.run, read, write, say=print, alive=lambda: None))
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert sent == [0, 10, 20]  # computed, decoded, and read
            held.set()

    pipeline = Pipeline(model, decoders=2)
    trio.run(main)
    pipeline.close()
    assert written == [part.part for part in parts]


def test_writing_that_fails_ends_the_rest(model: Model) -> None:
    async def read(target: "trio.MemorySendChannel[Thumbnails]") -> None:
        for part in parts_of(500, 10):
            await target.send(part)

    async def write(part: ScoredPart) -> None:
        raise TaskFailed("no room")

    pipeline = Pipeline(model)
    with pytest.raises(ExceptionGroup) as raised:
        trio.run(partial(pipeline.run, read, write, say=print, alive=lambda: None))
    pipeline.close()
    assert isinstance(root_cause(raised.value), TaskFailed)


def test_heads_tag_what_was_scored_before_it_is_rounded(model: Model) -> None:
    images = [*IMAGES[:4], b"none", *IMAGES[5:8]]
    part = Thumbnails(30, list(range(30, 38)), TEXTS[:8], images)
    head = first(model.dims)
    pipeline = Pipeline(model, [NamedHead(7, head), NamedHead(9, head)])
    scored = pipeline.compute(pipeline.decoding(part), Watch())
    pipeline.close()
    rows = tag_rows(5, scored)
    positions = [30, 31, 32, 33, 35, 36, 37]
    assert [row[:4] for row in rows] == [(5, 30, m, n) for m in (7, 9) for n in positions]
    exact = {row[3]: row[5] for row in rows if row[2] == 7}
    rounded = {
        row[2]: float(np.frombuffer(row[5], np.float16)[0])
        for row in score_rows(5, scored)
        if row[3] == ScoreOutcome.SCORED
    }
    assert exact.keys() == rounded.keys()
    assert all(abs(exact[n] - rounded[n]) < 1e-3 for n in exact)
    assert exact != rounded


def test_tag_that_is_not_finite_is_null(model: Model) -> None:
    class Nothing(Head):
        def tag(self, embeddings: torch.Tensor) -> Tags:
            return Tags(np.full(len(embeddings), np.nan, np.float32))

    plain = first(model.dims)
    pipeline = Pipeline(model, [NamedHead(1, Nothing(plain.layers))])
    scored = pipeline.compute(pipeline.decoding(parts_of(3, 3)[0]), Watch())
    pipeline.close()
    assert [row[4:] for row in tag_rows(5, scored)] == [(None, None)] * 3


def test_thumbnails_of_other_pictures_are_named(model: Model) -> None:
    """A downloader may say the right hash and send another picture."""
    part = parts_of(10, 10)[0]
    part.hashes = [hash_of(image) for image in part.images]
    part.images[3], part.images[6] = IMAGES[30], b"none"
    pipeline = Pipeline(model)
    scored = pipeline.compute(pipeline.decoding(part), Watch())
    pipeline.close()
    expected = [ScoreOutcome.SCORED] * 10
    expected[3], expected[6] = ScoreOutcome.WRONG_THUMBNAIL, ScoreOutcome.BROKEN_THUMBNAIL
    assert scored.scores.outcomes.tolist() == expected
