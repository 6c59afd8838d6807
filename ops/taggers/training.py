"""Heads from ratings: ridge regression or a small network on stored embeddings.

Ridge: Hoerl and Kennard, Ridge Regression: Biased Estimation for Nonorthogonal Problems (1970).
The rows are dealt into three parts by the seed: those held out, on which nothing is decided; a
validation part, which chooses the penalty or the number of passes; and the rest.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pairmill.workers.errors import Refused
from pairmill.workers.score.heads import Head
from pairmill.workers.score.layers import Layer

Floats = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

METHODS = ("ridge", "mlp")
MIN_ROWS = 50
VALIDATION = 0.2  # of what is not held out
PENALTIES = np.logspace(-8, 4, 25)  # times the mean variance of a column
CHUNK = 16_384  # rows in float64 at a time
HIDDEN, BATCH, RATE, DECAY = 64, 256, 1e-3, 1e-2
MAX_PASSES, PATIENCE = 200, 10


@dataclass(frozen=True)
class Trained:
    """A head, and how it does on rows that nothing was decided on.

    mae: mean absolute error. baseline_mae: of always saying the training rows' mean. spearman:
    rank correlation, None where either side is constant. penalty (ridge) or passes (mlp): chosen.
    """

    head: Head
    n_train: int
    n_held_out: int
    mae: float
    baseline_mae: float
    spearman: float | None
    method: str
    chosen: float

    def metrics(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "method": self.method,
            "penalty" if self.method == "ridge" else "passes": self.chosen,
            "n_train": self.n_train,
            "n_held_out": self.n_held_out,
            "mae": self.mae,
            "baseline_mae": self.baseline_mae,
            "spearman": self.spearman,
        }


def train(
    embeddings: Floats,
    ratings: Floats,
    *,
    method: str = "ridge",
    held_out: float = 0.1,
    seed: int = 0,
) -> Trained:
    """Train a head from embeddings, floating point [n, dims], L2-normalised, and ratings [n].

    held_out: part of the rows, 0 to 0.5, both exclusive. seed: deals the rows, and starts the
    network; rows in the same order give the same split. Raises Refused, with a sentence, for fewer
    than 50 rows, what is not finite, and ratings that are all the same.
    """
    known = ratings.astype(np.float64)
    _check(embeddings, known, method, held_out)
    order = np.random.default_rng(seed).permutation(len(ratings))
    test, rest = np.split(order, [max(1, round(held_out * len(order)))])
    validation, part = np.split(rest, [max(1, round(VALIDATION * len(rest)))])
    if np.ptp(known[part]) == 0:
        raise Refused("the ratings are all the same but for a few: there is nothing to learn")
    fit = _ridge if method == "ridge" else _mlp
    head, chosen = fit(embeddings, known, part, validation, seed)
    said = head.tag(torch.from_numpy(np.ascontiguousarray(embeddings[test]))).values
    wanted = known[test]
    return Trained(
        head=head,
        n_train=len(rest),
        n_held_out=len(test),
        mae=float(np.abs(said - wanted).mean()),
        baseline_mae=float(np.abs(known[rest].mean() - wanted).mean()),
        spearman=spearman(said, wanted),
        method=method,
        chosen=chosen,
    )


def spearman(a: Floats, b: Floats) -> float | None:
    """Rank correlation of two vectors, ties by their mean rank; None where one is constant."""
    x, y = _ranks(a), _ranks(b)
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) and np.ptp(y) else None


def _ranks(values: Floats) -> Float64:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Float64 = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


def _check(embeddings: Floats, ratings: Float64, method: str, held_out: float) -> None:
    if method not in METHODS:
        raise Refused(f"unknown method {method!r}: it is {' or '.join(METHODS)}")
    if not 0 < held_out < 0.5:
        raise Refused(f"the part held out must be between 0 and 0.5, and is {held_out}")
    if embeddings.ndim != 2 or ratings.shape != embeddings.shape[:1]:
        raise ValueError(f"{list(ratings.shape)} ratings of {list(embeddings.shape)} embeddings")
    if len(ratings) < MIN_ROWS:
        raise Refused(f"{len(ratings)} rated embeddings are too few: {MIN_ROWS} are the least")
    if not np.isfinite(ratings).all():
        raise Refused(f"the rating of row {int(np.argmin(np.isfinite(ratings)))} is not finite")
    if np.ptp(ratings) == 0:
        raise Refused(f"all ratings are {ratings[0]:g}: there is nothing to learn")
    for rows in _chunks(np.arange(len(ratings))):
        finite = np.isfinite(embeddings[rows]).all(axis=1)
        if not finite.all():
            raise Refused(f"the embedding of row {rows[int(np.argmin(finite))]} is not finite")


def _chunks(rows: Rows) -> Iterator[Rows]:
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]


@dataclass
class _Moments:
    """What ridge regression needs of some rows: their means, covariance, and that with ratings."""

    mean: Float64
    rating: float
    covariance: Float64
    with_rating: Float64

    @classmethod
    def of(cls, embeddings: Floats, ratings: Float64, rows: Rows) -> "_Moments":
        dims, n = embeddings.shape[1], len(rows)
        mean = sum(
            (embeddings[r].sum(axis=0, dtype=np.float64) for r in _chunks(rows)), np.zeros(dims)
        )
        mean, rating = mean / n, float(ratings[rows].mean())
        covariance, with_rating = np.zeros((dims, dims)), np.zeros(dims)
        for r in _chunks(rows):
            centred = embeddings[r] - mean
            covariance += centred.T @ centred
            with_rating += centred.T @ (ratings[r] - rating)
        return cls(mean, rating, covariance / n, with_rating / n)


def _ridge(
    embeddings: Floats, ratings: Float64, part: Rows, validation: Rows, seed: int
) -> tuple[Head, float]:
    moments = _Moments.of(embeddings, ratings, part)
    size = max(float(np.trace(moments.covariance)) / len(moments.mean), 1e-12)
    values, vectors = np.linalg.eigh(moments.covariance)
    turned = vectors.T @ moments.with_rating
    weights = vectors @ (turned[:, None] / (values.clip(0)[:, None] + size * PENALTIES))
    errors = np.zeros(len(PENALTIES))
    for rows in _chunks(validation):
        said = (embeddings[rows] - moments.mean) @ weights + moments.rating
        errors += ((said - ratings[rows][:, None]) ** 2).sum(axis=0)
    best = float(PENALTIES[int(np.argmin(errors))])
    # again on all that is not held out, with the penalty that was best
    moments = _Moments.of(embeddings, ratings, np.concatenate([part, validation]))
    ridge = moments.covariance + size * best * np.eye(len(moments.mean))
    weight = np.linalg.solve(ridge, moments.with_rating)
    bias = moments.rating - weight @ moments.mean
    layer = Layer(weight[None].astype(np.float32), np.array([bias], np.float32))
    return Head([layer]), best


def _mlp(
    embeddings: Floats, ratings: Float64, part: Rows, validation: Rows, seed: int
) -> tuple[Head, int]:
    """One hidden layer of ReLUs, until the validation part has not improved for some passes."""
    mean = embeddings[part].mean(axis=0, dtype=np.float64)
    size = max(float(embeddings[part].std(axis=0, dtype=np.float64).mean()), 1e-6)
    rating, spread = float(ratings[part].mean()), float(ratings[part].std())
    # in units in which the layers' first weights are of the right size; undone in the head
    x = torch.from_numpy((embeddings - mean.astype(np.float32)) / np.float32(size))
    y = torch.from_numpy((ratings - rating) / spread).float()[:, None]
    with _one_thread():
        layers, passes = _descended(
            x, y, torch.from_numpy(part), torch.from_numpy(validation), seed
        )
    (w1, b1), (w2, b2) = layers
    w1 = w1 / size
    hidden = Layer(w1.astype(np.float32), (b1 - w1 @ mean).astype(np.float32), "relu")
    last = Layer((w2 * spread).astype(np.float32), (b2 * spread + rating).astype(np.float32))
    return Head([hidden, last]), passes


def _descended(
    x: torch.Tensor, y: torch.Tensor, part: torch.Tensor, validation: torch.Tensor, seed: int
) -> tuple[list[tuple[Float64, Float64]], int]:
    """Weight and bias of both layers at the pass that was best, and its number."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, last = torch.nn.Linear(x.shape[1], HIDDEN), torch.nn.Linear(HIDDEN, 1)
    network = torch.nn.Sequential(first, torch.nn.ReLU(), last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    loss = torch.nn.functional.mse_loss
    least, best, layers = math.inf, 0, _numbers(first, last)
    for done in range(1, MAX_PASSES + 1):
        shuffled = part[torch.randperm(len(part), generator=generator)]
        for batch in torch.split(shuffled, BATCH):
            optimiser.zero_grad()
            torch.autograd.backward(loss(network(x[batch]), y[batch]))
            optimiser.step()
        with torch.inference_mode():
            error = float(loss(network(x[validation]), y[validation]))
        if error < least:
            least, best, layers = error, done, _numbers(first, last)
        elif done - best >= PATIENCE:
            break
    return layers, best


@contextmanager
def _one_thread() -> Iterator[None]:
    """A network so small is slower on more, and its sums would depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _numbers(*layers: torch.nn.Linear) -> list[tuple[Float64, Float64]]:
    return [
        (layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy())
        for layer in layers
    ]
