"""The description of an index, index.json, and the names of its files.

A folder holds ``index.json`` and a folder of each shard. A shard has ``keys.npy``, ``pairs.arrow``,
``duplicates.npy`` and their like (ops/vectors/shard_files.py), and the structure that is asked:
``images.usearch`` (hnsw, with the vectors in it), or ``images.faiss`` beside ``embeddings.npy``
(ivfpq).
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pairmill.ops.errors import UserError

INFO_FILE = "index.json"
KINDS = ("hnsw", "ivfpq")
NOTHING = np.iinfo(np.uint64).max  # no sample's key
Keys = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]
Rows = npt.NDArray[np.int64]
StepProgress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """A StepProgress that shows nothing."""


@dataclass(frozen=True)
class ShardInfo:
    """A shard. name: its folder's. kind: of KINDS. samples: their number. vectors: distinct ones
    among their embeddings. effort: candidates compared exactly by a query that names no number.
    probes: inverted lists that it reads (hnsw: 0). recall_at_10: against exact search in the shard,
    as measured with them (tuning.Recall). bytes: of its files."""

    name: str
    kind: str
    samples: int
    vectors: int
    effort: int
    probes: int
    recall_at_10: dict[str, Any]
    bytes: int


@dataclass(frozen=True)
class IndexInfo:
    """An index. kind, why: the structure and the reason for it. samples: their number. vectors:
    distinct ones among their embeddings, in each shard. removed: samples deleted since it was
    built. release, model: as of the export. recall_at_10: mean over the shards' vectors. wanted:
    recall that it was built for. written_by: versions."""

    kind: str
    why: str
    samples: int
    vectors: int
    removed: int
    dims: int
    release: dict[str, Any]
    model: dict[str, Any]
    wanted: float
    recall_at_10: dict[str, Any]
    written_by: dict[str, str]
    shards: list[ShardInfo] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_info(folder: Path) -> IndexInfo:
    """Raises UserError if the folder holds no index."""
    try:
        read = json.loads((folder / INFO_FILE).read_bytes())
        shards = [ShardInfo(**each) for each in read.pop("shards")]
        if any(Path(shard.name).name != shard.name for shard in shards):
            raise ValueError("a shard is elsewhere")
        return IndexInfo(**read, shards=shards)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} is no index: make one with `pairmill index build`") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{folder / INFO_FILE} is not what `pairmill index build` writes") from None


def write_info(folder: Path, info: IndexInfo) -> None:
    text = json.dumps(info.as_dict(), indent=2, ensure_ascii=False) + "\n"
    put(folder / INFO_FILE, lambda path: path.write_text(text, "utf-8"))


def put(path: Path, write: Callable[[Path], object]) -> None:
    """A file replaced in one step."""
    beside = path.with_name(f".{path.name}.unfinished")
    try:
        write(beside)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def mean_recall(shards: list[ShardInfo]) -> dict[str, Any]:
    """The recall of all shards asked side by side: that of each, by its vectors. The merged answer
    is no worse: a neighbour that is among the ten nearest of all is one of the ten of its shard."""
    measured = [shard for shard in shards if shard.recall_at_10["queries"]]
    weight = sum(shard.vectors for shard in measured)
    found: dict[str, Any] = {
        kind: sum(shard.recall_at_10[kind] * shard.vectors for shard in measured) / weight
        if measured
        else None
        for kind in ("image", "text")
    }
    return found | {"queries": sum(shard.recall_at_10["queries"] for shard in measured)}
