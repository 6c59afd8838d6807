"""Models and taggers by the admin's commands, and a scorer that computes what they made known."""

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch

from pairmill.ops.demo import model as demo
from pairmill.ops.demo.drawings import attributes, caption
from pairmill.ops.demo.model.train import HELD_OUT, thumbnail
from pairmill.workers import daemon
from pairmill.workers.score import watermark
from pairmill.workers.score.heads import Head
from pairmill.workers.score.layers import Layer
from pairmill.workers.score.model import Model, load
from pairmill.workers.score.worker import Score
from support.database import Database, say_migrated
from support.line import Line, sentence
from support.scoring import to_score
from support.shared_data import shared_file

DEMO = ("--model", str(demo.PATH))
DIMS, COUNT = 64, 120
IMAGES = [thumbnail(HELD_OUT + n) for n in range(COUNT)]
TEXTS = [caption(HELD_OUT + n, attributes(HELD_OUT + n)) for n in range(COUNT)]


@pytest.fixture(scope="module")
def clip() -> Model:
    return load(str(demo.PATH), device="cpu")


@pytest.fixture
def line(db: Database, tmp_path: Path) -> Line:
    say_migrated(db.admin)
    return Line(db.dsn, tmp_path)


def score(db: Database, worker: Score) -> None:
    """Run a scorer until nothing is left for it."""
    done = Event()

    def accept() -> None:
        while not done.is_set():  # it is drained once what it submitted is accepted
            db.accept_all()

    with ThreadPoolExecutor(1) as pool:
        accepting = pool.submit(accept)
        try:
            daemon.run(partial(daemon.serve, worker, db.login("score"), drain=True))
        finally:
            done.set()
        accepting.result()


def saved(head: Head, path: Path) -> str:
    path.write_bytes(head.to_bytes())
    return str(path)


def a_head(seed: int = 0, dims: int = DIMS) -> Head:
    weight = np.random.default_rng(seed).normal(size=(1, dims)).astype(np.float32)
    return Head([Layer(weight, np.zeros(1, np.float32))])


def stored(db: Database) -> dict[int, np.ndarray]:
    return {
        n: np.frombuffer(image, "<f2").astype(np.float32)
        for n, image in db.rows("select n, image from mill.embedding")
    }


def test_heads_in_the_pass_and_later_agree_with_the_stored_embeddings(
    db: Database, clip: Model, line: Line, tmp_path: Path
) -> None:
    head = a_head()
    line.pairmill("model", "add", *DEMO, "--name", "clip")
    line.pairmill(
        "model", "add", "--head", saved(head, tmp_path / "one.safetensors"), "--licence", "MIT"
    )
    to_score(db, [b"none", *IMAGES[1:]], TEXTS)
    score(db, Score(clip))
    later = a_head(1)
    said = line.pairmill(
        "model", "add", "--head", saved(later, tmp_path / "later.safetensors"), "--json"
    )
    assert json.loads(said) == {
        "name": "later", "kind": "head", "dims": DIMS, "digest": later.digest, "queued": 1,
        "unreachable": 0,
    }  # fmt: skip
    score(db, Score(clip))
    embeddings = stored(db)
    for name, made in (("one", head), ("later", later)):
        values = dict(db.rows("select n, value from report.tag where model = %s", name))
        assert values.keys() == embeddings.keys()
        assert len(values) == COUNT - 1  # one has no thumbnail
        for n, vector in embeddings.items():
            unit = torch.nn.functional.normalize(torch.from_numpy(vector)[None], dim=-1)
            assert values[n] == pytest.approx(float(made.tag(unit).values[0]), abs=5e-3)
    assert db.value("select count(*) from report.score where text_tokens between 3 and 30") == COUNT
    shown = json.loads(line.pairmill("model", "show", "one", "--json"))
    assert (shown["kind"], shown["base"], shown["licence"]) == ("head", "clip", "MIT")
    assert shown["weights_bytes"] == len(head.to_bytes())
    assert "as their row says" in line.pairmill("model", "check", "one")
    assert "would be retired; 0 ready tasks" in line.pairmill(
        "model", "retire", "later", "--dry-run"
    )
    assert json.loads(line.pairmill("model", "show", "later", "--json"))["retired_at"] is None
    assert "is retired" in line.pairmill("model", "retire", "later")
    assert json.loads(line.pairmill("model", "show", "later", "--json"))["retired_at"] is not None
    listed = json.loads(line.pairmill("model", "list", "--json"))
    assert [m["name"] for m in listed] == ["clip", "later", "one"]


def test_zero_shot_tagger_finds_what_is_drawn(
    db: Database, clip: Model, line: Line, tmp_path: Path
) -> None:
    colours = sorted({attributes(HELD_OUT + n).ground for n in range(COUNT)})
    tables = [
        f'[[category]]\nname = "{colour}"\nprompts = ["one red square on {colour} paper",'
        f' "a drawing of one circle on a {colour} background"]'
        for colour in colours
    ]
    file = tmp_path / "background.toml"
    file.write_text("\n".join(tables))
    line.pairmill("model", "add", *DEMO, "--name", "clip")
    line.pairmill("model", "add", "--zero-shot", str(file), *DEMO)
    to_score(db, IMAGES, TEXTS)
    score(db, Score(clip))
    found = dict(
        db.rows(
            "select split_part(p.url, '/', 4), t.label from report.tag t join mill.pair p using (batch_id, n)"
        )
    )
    right = [found[f"{i}.jpg"] == attributes(HELD_OUT + i).ground for i in range(COUNT)]
    assert np.mean(right) > 3 / len(colours)  # far above chance


def test_watermark_weights_stay_with_the_scorer(
    db: Database,
    clip: Model,
    line: Line,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(0)
    network = watermark.architecture().to_empty(device="cpu")
    for parameter in [*network.parameters(), *network.buffers()]:
        if parameter.is_floating_point():
            torch.nn.init.normal_(parameter, 0.05, 0.02)
            parameter.data.abs_()
    file = tmp_path / "pwatermark.pt"
    torch.save(network.state_dict(), file)
    line.pairmill("model", "add", *DEMO, "--name", "clip")
    line.pairmill("model", "add", "--watermark", str(file))
    to_score(db, [b"none", *IMAGES[1:6]], TEXTS[:6])
    # who has others brings them in vain, and is told
    network.classifier[-1].bias.data += 1
    torch.save(network.state_dict(), tmp_path / "other.pt")
    other = watermark.load(tmp_path / "other.pt")
    Score(clip, [other]).digests(db.queue("score")[0])
    assert f"no tagger of this model with the given weights, sha256 {other.digest}" in (
        capsys.readouterr().err
    )
    # who has no weights leaves them to others
    score(db, Score(clip))
    tasks = "select m.name, t.state from mill.task t join mill.model m using (model_id) order by 1"
    assert db.rows(tasks) == [("clip", "done"), ("pwatermark", "ready")]
    score(db, Score(clip, [watermark.load(file)]))
    assert db.rows(tasks) == [("clip", "done"), ("pwatermark", "done")]
    rows = db.rows("select value from report.tag order by value")
    assert [value is None for (value,) in rows] == [False] * 5 + [True]
    assert all(0 <= value <= 1 for (value,) in rows[:5])
    # and in one pass with the rest
    to_score(db, IMAGES[6:9], TEXTS[6:9])
    score(db, Score(clip, [watermark.load(file)]))
    assert db.value("select count(*) from mill.task where kind = 'score' and state <> 'done'") == 0
    assert db.value("select count(*) from report.tag") == 9
    assert "the same weights" in line.pairmill(
        "model", "check", "pwatermark", "--watermark", str(file)
    )


def test_a_head_is_trained_on_ratings_and_tags_what_is_there(
    db: Database, clip: Model, line: Line, tmp_path: Path
) -> None:
    line.pairmill("model", "add", *DEMO, "--name", "clip")
    to_score(db, IMAGES, TEXTS)
    score(db, Score(clip))
    truth = a_head(5)
    ratings = tmp_path / "ratings.csv"
    with ratings.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["SAMPLE_ID", "rating"])
        for n, vector in stored(db).items():
            rows.writerow([n, float(truth.tag(torch.from_numpy(vector)[None]).values[0])])
        rows.writerow([2**40, 3.0])  # nobody's
    # one more is a scorer's nonsense
    db.admin.execute("update mill.embedding set image = %s where n = 7", (b"\x00\x7e" * DIMS,))
    command = ("model", "train-head", "--ratings", str(ratings), "--name", "taste", "--json")
    tried = json.loads(line.pairmill(*command, "--dry-run"))
    assert tried["model"] is None
    assert (tried["n_train"] + tried["n_held_out"], tried["without_embedding"]) == (COUNT - 1, 2)
    assert tried["mae"] < tried["baseline_mae"] / 2
    trained = json.loads(line.pairmill(*command))
    assert trained["model"]["queued"] == 1
    assert trained | {"model": None} == tried
    assert json.loads(line.pairmill("model", "show", "taste", "--json"))["metrics"] == {
        key: value for key, value in trained.items() if key != "model"
    }
    score(db, Score(clip))
    assert db.value("select count(*) from report.tag where model = 'taste'") == COUNT


def test_laions_own_heads_are_added(db: Database, line: Line) -> None:
    db.admin.execute("select mill.add_model('L', '', 'l', 768)")
    db.admin.execute("select mill.add_model('B', '', 'b', 512)")
    for file, base in (
        ("aesthetic-v2-vit-l-14.pth", "L"),
        ("aesthetic-v1-vit-b-32.pth", "B"),
        ("nsfw-vit-b-32.zip", "B"),
        ("nsfw-vit-l-14.zip", "L"),
    ):
        path = shared_file(f"models/{file}")
        line.pairmill("model", "add", "--head", str(path), "--base", base)
        line.pairmill("model", "check", path.stem)
    wrong = shared_file("models/aesthetic-v1-vit-l-14.pth")
    said = sentence(line.run("model", "add", "--head", str(wrong), "--base", "B"))
    assert "reads embeddings of 768 dims, and B gives 512" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give --model for a CLIP model, or one of --head"),
        (("--head", "x.safetensors", "--watermark", "y.pt"), "give --model for a CLIP model, or"),
        (("--head", "nowhere.safetensors"), "nowhere.safetensors"),
        (("--zero-shot", "x.toml"), "--zero-shot needs --model"),
    ],
)
def test_wrong_use_is_said_in_a_sentence(line: Line, arguments: tuple[str, ...], says: str) -> None:
    assert says in sentence(line.run("model", "add", *arguments))


def test_weights_that_are_not_what_their_row_says_cost_only_their_own_work(
    db: Database,
    clip: Model,
    line: Line,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line.pairmill("model", "add", *DEMO, "--name", "clip")
    line.pairmill("model", "add", "--head", saved(a_head(), tmp_path / "good.safetensors"))
    line.pairmill("model", "add", "--head", saved(a_head(1), tmp_path / "bad.safetensors"))
    db.admin.execute("update mill.model set weights = 'nonsense' where name = 'bad'")
    assert sentence(line.run("model", "check", "bad"))
    to_score(db, IMAGES[:8], TEXTS[:8])
    score(db, Score(clip))
    assert "the tagger bad cannot be used" in capsys.readouterr().err
    assert db.rows("select model, count(*) from report.tag group by 1") == [("good", 8)]
    assert db.rows("select state from report.task where model = 'bad'") == [("ready",)]
