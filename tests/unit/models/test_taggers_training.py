"""Heads from ratings: they learn what is there to learn, and say honestly how well."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pairmill.ops.taggers import training
from pairmill.ops.taggers.training import spearman, train
from pairmill.workers.errors import Refused
from pairmill.workers.score.heads import Head

DIMS = 32


def rated(n: int = 600, noise: float = 0.05, bend: float = 0.0, seed: int = 0) -> tuple[Any, Any]:
    """Embeddings (float16, as stored, in a cone as CLIP's), and ratings about 5 that follow them."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((n, DIMS)) + 2 * random.standard_normal(DIMS)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = (x - x.mean(axis=0)) @ random.standard_normal(DIMS)
    y = 5 + y / y.std()
    y += bend * (y - 5) ** 2 + noise * random.standard_normal(n)
    return x.astype(np.float16), y


@pytest.mark.parametrize("method", training.METHODS)
def test_learns_ratings_that_follow_the_embedding(method: str) -> None:
    x, y = rated()
    trained = train(x, y, method=method)
    assert (trained.n_train, trained.n_held_out) == (540, 60)
    assert trained.mae < 0.25 < 0.6 < trained.baseline_mae
    assert trained.spearman is not None
    assert trained.spearman > 0.95
    assert (trained.head.kind, trained.head.dims) == ("head", DIMS)
    assert json.loads(json.dumps(trained.metrics()))["mae"] == trained.mae
    again = Head.from_bytes(trained.head.to_bytes())
    values = again.tag(torch.from_numpy(x)).values
    assert np.abs(values - y).mean() < 0.25


def test_metrics_are_of_rows_that_were_held_out() -> None:
    """Other ratings of the held out rows change what is measured of the head, and not the head."""
    x, y = rated()
    one = train(x, y)
    test = np.random.default_rng(0).permutation(len(y))[:60]
    other = y.copy()
    other[test] += 100
    two = train(x, other)
    assert two.head.digest == one.head.digest
    assert two.mae == pytest.approx(100, abs=1)
    assert two.baseline_mae == pytest.approx(100, abs=1)


@pytest.mark.parametrize("method", training.METHODS)
def test_ratings_of_nothing_are_no_better_than_their_mean(method: str) -> None:
    x, y = rated()
    trained = train(x, np.random.default_rng(5).permutation(y), method=method)
    assert trained.mae > 0.9 * trained.baseline_mae
    assert trained.spearman is None or abs(trained.spearman) < 0.4


def test_network_learns_a_bend_that_ridge_cannot() -> None:
    x, y = rated(1000, bend=1.0)
    ridge, mlp = train(x, y), train(x, y, method="mlp")
    assert mlp.mae < 0.7 * ridge.mae


@pytest.mark.parametrize("method", training.METHODS)
def test_seed_decides_all(method: str) -> None:
    x, y = rated(200)
    digests = [train(x, y, method=method, seed=seed).head.digest for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]
    before = torch.random.get_rng_state()
    train(x, y, method=method)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_ridge_is_the_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = rated(300)
    trained = train(x, y)
    monkeypatch.setattr(training, "CHUNK", 37)
    assert train(x, y).head.layers[0].weight == pytest.approx(
        trained.head.layers[0].weight, abs=1e-4
    )
    rest = np.random.default_rng(0).permutation(300)[30:]
    a, b = x[rest].astype(np.float64), y[rest]
    a0, b0 = a - a.mean(axis=0), b - b.mean()
    penalty = trained.chosen * np.trace(a0.T @ a0) / DIMS
    wanted = np.linalg.inv(a0.T @ a0 + penalty * np.eye(DIMS)) @ a0.T @ b0
    layer = trained.head.layers[0]
    assert layer.weight[0] == pytest.approx(wanted, rel=1e-4, abs=1e-4)
    assert layer.bias[0] == pytest.approx(b.mean() - a.mean(axis=0) @ wanted, abs=1e-4)


def test_more_columns_than_rows_and_columns_without_spread() -> None:
    x, y = rated(60)
    wide = np.concatenate(
        [x, np.zeros((60, 100), np.float16), np.ones((60, 1), np.float16)], axis=1
    )
    for method in training.METHODS:
        trained = train(wide, y, method=method)
        assert np.isfinite(trained.head.tag(torch.from_numpy(wide)).values).all()
        assert trained.mae < trained.baseline_mae
    same = train(np.ones((60, 3), np.float32), y)
    assert same.spearman is None
    assert same.metrics()["spearman"] is None


X, Y = rated(60)
ONCE = np.eye(1, 60, 7, dtype=np.float64)[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"embeddings": X[:49], "ratings": Y[:49]}, "49 rated embeddings are too few: 50"),
        ({"embeddings": X[:0], "ratings": Y[:0]}, "0 rated embeddings are too few"),
        ({"ratings": np.where(ONCE, np.nan, Y)}, "the rating of row 7 is not finite"),
        ({"ratings": np.where(ONCE, np.inf, Y)}, "the rating of row 7 is not finite"),
        ({"ratings": np.full(60, 2.5)}, "all ratings are 2.5"),
        ({"ratings": ONCE, "seed": 10}, "all the same but for a few"),
        (
            {"embeddings": np.where(ONCE[:, None], np.float16("nan"), X)},
            "embedding of row 7 is not",
        ),
        ({"method": "forest"}, "unknown method 'forest': it is ridge or mlp"),
        ({"held_out": 0.0}, "between 0 and 0.5"),
        ({"held_out": 0.5}, "between 0 and 0.5"),
    ],
)
def test_what_cannot_be_learnt_is_refused(arguments: dict[str, Any], sentence: str) -> None:
    given_ = {"embeddings": X, "ratings": Y} | arguments
    with pytest.raises(Refused, match=sentence):
        train(given_.pop("embeddings"), given_.pop("ratings"), **given_)


def test_shapes_that_do_not_match_are_an_error() -> None:
    for x, y in ((X, Y[:-1]), (X[0], Y), (X, Y[:, None])):
        with pytest.raises(ValueError, match="ratings of"):
            train(x, y)


def test_rank_correlation() -> None:
    # the first as in scipy.stats.spearmanr's documentation, the second -3 / sqrt(10)
    assert spearman(np.array([1.0, 2, 3, 4, 5]), np.array([5.0, 6, 7, 8, 7])) == pytest.approx(
        0.8207826816681233
    )
    assert spearman(np.array([1.0, 1, 2, 3]), np.array([4.0, 3, 2, 1])) == pytest.approx(
        -0.9486832980505138
    )
    assert spearman(np.array([1.0, 1, 1]), np.array([1.0, 2, 3])) is None


@given(st.lists(st.integers(-50, 50), min_size=3, max_size=30, unique=True))
def test_rank_correlation_sees_order_only(values: list[int]) -> None:
    x = np.array(values, np.float64)
    assert spearman(x, np.exp(x / 10)) == pytest.approx(1)
    assert spearman(x, -(x**3)) == pytest.approx(-1)
