"""Recall of a shard: the share of the true nearest neighbours that it finds, and the number of
candidates that finds as many as are wanted."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pairmill.ops.vectors.hnsw import EXPANSION_SEARCH, Graph
from pairmill.ops.vectors.index_info import NOTHING, Floats, Halves, Rows, StepProgress

if TYPE_CHECKING:
    from pairmill.ops.vectors.ivfpq import InvertedLists

__all__ = ["NOTHING", "Recall", "unit"]
K = 10
BLOCK = 10_000  # vectors compared at once
SAME = 1e-5  # cosines that differ by less are a tie: float32 sums in another order
FEWEST = 32  # candidates of a graph
MOST = 1_600  # candidates that are compared exactly
SPARE = 0.005  # of recall: 200 queries leave an error of that size
# seconds, on two cores of an AMD EPYC: a code's byte is scanned, a vector is fetched and compared
OF_BYTE, OF_CANDIDATE = 0.5e-9, 3e-6


@dataclass(frozen=True)
class Recall:
    """Recall@10 against exact search, 0 to 1, of queries by an image (which is no neighbour of
    itself) and by a text; null where there are no more than 10 vectors. queries: of each kind."""

    image: float | None
    text: float | None
    queries: int

    def as_dict(self) -> dict[str, float | int | None]:
        return asdict(self)


@dataclass(frozen=True)
class Questions:
    """asked: float32[2 n, dims], L2-normalised: n of images, then those of their texts. own:
    int64[2 n], the row that is no answer, or -1."""

    asked: Floats
    own: Rows

    def __len__(self) -> int:
        return len(self.asked) // 2


@dataclass(frozen=True)
class Effort:
    """What a query reads: candidates that are compared exactly, inverted lists; the recall so."""

    candidates: int
    probes: int
    recall: Recall


def exact(
    structure: "Graph | InvertedLists", questions: Questions, progress: StepProgress
) -> Floats:
    """Cosine of the 10th nearest vector to each question, by comparing with all: float32[n]."""
    asked, own = questions.asked, questions.own
    best = np.full((len(asked), K), -np.inf, np.float32)
    for rows, vectors in blocks(structure):
        progress("exact search", int(rows[0]), len(structure))
        near = asked @ unit(vectors).T
        inside = np.flatnonzero((own >= rows[0]) & (own <= rows[-1]))
        near[inside, own[inside] - rows[0]] = -np.inf
        both = np.concatenate([best, near], axis=1)
        best = np.partition(both, both.shape[1] - K, axis=1)[:, -K:]
    tenth: Floats = best.min(axis=1)
    return tenth


def blocks(structure: "Graph | InvertedLists") -> Iterator[tuple[Rows, Halves]]:
    """All rows and their vectors, BLOCK at once."""
    for start in range(0, len(structure), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(structure)))
        yield rows, structure.get(rows)


def shares(near: list[Floats], tenth: Floats) -> Recall:
    """near: of each question the cosines of its answers without its own row, best first. By
    similarity, as ann-benchmarks counts (Aumüller, Bernhardsson and Faithfull 2018), since images
    that are nearly the same may swap places."""
    each = np.array(
        [
            (cosines[:K] >= least - SAME).sum() / K
            for cosines, least in zip(near, tenth, strict=True)
        ]
    )
    half = len(each) // 2
    return Recall(float(each[:half].mean()), float(each[half:].mean()), half)


def of_graph(graph: Graph, questions: Questions, wanted: float, progress: StepProgress) -> Effort:
    """The fewest candidates, from 32 on, that find as many as are wanted; else the most that are
    worth a try."""
    if len(graph) <= K or not len(questions):
        return Effort(EXPANSION_SEARCH, 0, Recall(None, None, 0))
    tenth = exact(graph, questions, progress)
    effort = FEWEST
    while True:
        found = graph.search(questions.asked, K + 5, effort)
        recall = shares(_answers(graph, questions, found), tenth)
        if _least(recall) >= wanted or effort >= MOST or effort >= 2 * len(graph):
            return Effort(effort, 0, recall)
        effort *= 2


def of_lists(
    lists: "InvertedLists", questions: Questions, wanted: float, code: int, progress: StepProgress
) -> Effort:
    """The cheapest pair of candidates and probes that finds as many as are wanted, and SPARE more;
    else the pair that finds most. code: bytes of one."""
    if len(lists) <= K or not len(questions):
        return Effort(min(400, len(lists)), min(64, lists.lists), Recall(None, None, 0))
    tenth = exact(lists, questions, progress)
    tried: list[tuple[float, Effort]] = []
    probes = 1
    while probes <= min(lists.lists, 1_024):
        progress("choosing probes", probes, lists.lists)
        # the codes' own order tells of any smaller number of candidates too
        found = lists.search(questions.asked, MOST, probes)
        candidates = 25
        while candidates <= MOST:
            near = _answers(lists, questions, [rows[:candidates] for rows in found])
            cost = probes * len(lists) / lists.lists * code * OF_BYTE + candidates * OF_CANDIDATE
            tried.append((cost, Effort(candidates, probes, shares(near, tenth))))
            if _least(tried[-1][1].recall) >= wanted + SPARE:
                break  # more candidates cost more
            candidates *= 2
        probes *= 2
    enough = [each for each in tried if _least(each[1].recall) >= min(wanted + SPARE, 0.9995)]
    if enough:
        return min(enough, key=lambda each: each[0])[1]
    return max(tried, key=lambda each: (_least(each[1].recall), -each[0]))[1]


def _least(recall: Recall) -> float:
    return min(recall.image or 0.0, recall.text or 0.0)


def _answers(
    structure: "Graph | InvertedLists", questions: Questions, found: list[Rows]
) -> list[Floats]:
    answers = []
    for asked, own, rows in zip(questions.asked, questions.own, found, strict=True):
        near, _ = ranked(structure, asked, rows[rows != own])
        answers.append(near)
    return answers


def ranked(structure: "Graph | InvertedLists", asked: Floats, rows: Rows) -> tuple[Floats, Rows]:
    """Cosines of a vector (float32[dims], L2-normalised) to those of rows, best first, and the
    rows in that order."""
    cosines = unit(structure.get(rows)) @ asked
    order = np.lexsort((rows, -cosines))
    return cosines[order], rows[order]


def unit(vectors: npt.NDArray[Any]) -> Floats:
    """float32[n, dims], L2-normalised; one of length 0 stays so."""
    full = np.array(vectors, np.float32)
    length = np.sqrt(np.einsum("ij,ij->i", full, full, dtype=np.float32))[:, None]
    length[length == 0] = 1
    made: Floats = np.divide(full, length, out=full)
    return made
