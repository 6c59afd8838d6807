"""Zero-shot taggers: categories described by prompts, in a TOML file, become a head.

Radford et al., Learning Transferable Visual Models From Natural Language Supervision (2021), 3.1:
an embedding per category, the mean of those of its prompts; the softmax of the image's similarity
to each, multiplied by the model's logit scale.
"""

import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pairmill.workers.errors import Refused
from pairmill.workers.score.heads import Head
from pairmill.workers.score.layers import Float32, Layer

MAX_PROMPT = 250  # characters: CLIP reads 77 tokens, and drops what follows
MAX_PROMPTS = 10_000  # all together, each in each template
MAX_FILE = 2**20
WITHOUT_TEMPLATE = ("{}",)


@dataclass(frozen=True)
class Category:
    """prompts: what is encoded, the templates filled in."""

    name: str
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class ZeroShot:
    """A zero-shot tagger before its prompts are encoded. positive: names of the categories whose
    probabilities are summed; () for the winner's."""

    categories: tuple[Category, ...]
    positive: tuple[str, ...] = ()


def read(path: Path) -> ZeroShot:
    """The tagger of a TOML file; ops/taggers/nsfw.toml shows one.

    Raises Refused, saying what and where, for a file that is not there or no TOML, an unknown key,
    a category or prompt that is empty or stands there twice, and a positive name of no category.
    """
    try:
        data = path.read_bytes()
        if len(data) > MAX_FILE:
            raise Refused(f"{path} has {len(data)} bytes: a tagger's file has at most {MAX_FILE}")
        says = tomllib.loads(data.decode())
    except OSError as error:
        raise Refused(f"cannot read the tagger {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"the tagger {path} is not TOML: {error}") from None
    try:
        return parse(says)
    except Refused as error:
        raise Refused(f"the tagger {path}: {error}") from None


def parse(says: dict[str, Any]) -> ZeroShot:
    """The tagger of what a file says; raises Refused as ``read`` does."""
    _known(says, {"templates", "positive", "category"}, "the file")
    templates = _texts(says.get("templates", list(WITHOUT_TEMPLATE)), "templates")
    for template in templates:
        if template.count("{}") != 1:
            raise Refused(f"the template {template!r} must hold {{}} once, for the prompt")
    tables = says.get("category")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise Refused("it needs [[category]] tables, each with a name and prompts")
    if len(tables) < 2:
        raise Refused("it needs at least two categories: all probability would be one's")
    categories = [_category(i, table, templates) for i, table in enumerate(tables, 1)]
    _distinct((category.name for category in categories), "category")
    prompts = [prompt for category in categories for prompt in category.prompts]
    _distinct(prompts, "prompt")
    if len(prompts) > MAX_PROMPTS:
        raise Refused(f"it has {len(prompts)} prompts, and may have {MAX_PROMPTS}")
    positive = _texts(says["positive"], "positive") if "positive" in says else []
    for name in positive:
        if name not in {category.name for category in categories}:
            raise Refused(f"{name!r} of positive is no category")
    _distinct(positive, "positive category")
    if len(positive) == len(categories):
        raise Refused("all categories are positive: the value would always be 1")
    return ZeroShot(tuple(categories), tuple(positive))


def head(
    tagger: ZeroShot, encode_text: Callable[[list[str]], npt.ArrayLike], *, scale: float
) -> Head:
    """The tagger for one CLIP model.

    encode_text: prompts to float32[n, dims], as the model embeds them. scale: the model's
    exponentiated logit scale, 100 for OpenAI's. Raises Refused where an embedding is not finite or
    prompts cancel each other out.
    """
    prompts = [prompt for category in tagger.categories for prompt in category.prompts]
    embeddings = np.asarray(encode_text(prompts), np.float64)
    if embeddings.ndim != 2 or len(embeddings) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts were encoded as {list(embeddings.shape)}")
    embeddings = _normalised(embeddings, prompts)
    ends = np.cumsum([len(category.prompts) for category in tagger.categories])[:-1]
    names = [category.name for category in tagger.categories]
    means = np.stack([group.mean(axis=0) for group in np.split(embeddings, ends)])
    weight = _normalised(means, names).astype(np.float32)
    bias: Float32 = np.zeros(len(names), np.float32)
    return Head([Layer(weight, bias)], labels=names, positive=tagger.positive, scale=float(scale))


def _normalised(rows: npt.NDArray[np.float64], names: list[str]) -> npt.NDArray[np.float64]:
    lengths = np.linalg.norm(rows, axis=1)
    for name, length in zip(names, lengths, strict=True):
        if not np.isfinite(length) or length < 1e-6:
            raise Refused(f"the model embeds {name[:60]!r} as a vector of length {length:g}")
    normalised: npt.NDArray[np.float64] = rows / lengths[:, None]
    return normalised


def _category(number: int, table: dict[str, Any], templates: list[str]) -> Category:
    name = table.get("name")
    if not isinstance(name, str) or not name.strip():
        raise Refused(f"category {number} needs a name")
    _known(table, {"name", "prompts"}, f"category {name!r}")
    prompts = _texts(table.get("prompts"), f"the prompts of category {name!r}")
    filled = [template.replace("{}", prompt) for prompt in prompts for template in templates]
    return Category(name, tuple(filled))


def _texts(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not value:
        raise Refused(f"{where} must be a list of texts, with one at least")
    for i, text in enumerate(value, 1):
        if not isinstance(text, str) or not text.strip():
            raise Refused(f"{where}: the {i}. is no text, or empty")
        if len(text) > MAX_PROMPT:
            raise Refused(f"{where}: the {i}. has more than {MAX_PROMPT} characters")
    return value


def _known(table: dict[str, Any], keys: set[str], where: str) -> None:
    for key in table:
        if key not in keys:
            raise Refused(
                f"{where} has the unknown key {key!r}: known are {', '.join(sorted(keys))}"
            )


def _distinct(texts: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for text in texts:
        same = " ".join(text.split()).casefold()
        if same in seen:
            raise Refused(f"the {what} {text!r} stands there twice")
        seen.add(same)
