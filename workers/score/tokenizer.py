"""Texts into tokens, and how long they were before they were cut."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pairmill.workers.score import torchvision_import as _before_open_clip  # noqa: F401

# isort: split
import open_clip

MOST = np.iinfo(np.int16).max


@dataclass
class Tokens:
    """ids: int64[n, context_length], as open_clip's tokenizer gives them. lengths: int16[n],
    tokens before truncation, with those of start and end where the tokenizer has them; at most
    32,767."""

    ids: torch.Tensor
    lengths: npt.NDArray[np.int16]


class Tokenizer:
    """open_clip's tokenizer of a model; its lengths too. context_length: tokens that the model
    reads. Threads may share one, one call at a time."""

    def __init__(self, tokenize: Callable[[list[str]], torch.Tensor]) -> None:
        self._tokenize = tokenize
        self.context_length = int(getattr(tokenize, "context_length", 0) or 0)

    def __call__(self, texts: Sequence[str]) -> Tokens:
        tokenize: Any = self._tokenize
        if isinstance(tokenize, open_clip.SimpleTokenizer) and tokenize.reduction_fn is None:
            return self._simple(texts)
        ids = tokenize(list(texts))
        return Tokens(ids, _lengths(self._counts(texts, ids)))

    def _simple(self, texts: Sequence[str]) -> Tokens:
        """What SimpleTokenizer does, with each text encoded once for both answers."""
        tokenize: Any = self._tokenize
        ids = np.zeros((len(texts), self.context_length), np.int64)
        counts = []
        for row, text in zip(ids, texts, strict=True):
            tokens = [tokenize.sot_token_id, *tokenize.encode(text), tokenize.eot_token_id]
            counts.append(len(tokens))
            if len(tokens) > self.context_length:
                tokens = tokens[: self.context_length]
                tokens[-1] = tokenize.eot_token_id
            row[: len(tokens)] = tokens
        return Tokens(torch.from_numpy(ids), _lengths(counts))

    def _counts(self, texts: Sequence[str], ids: torch.Tensor) -> list[int]:
        """Of a Hugging Face tokenizer behind open_clip's; of another kind what can be told from
        the tokens: those up to the last that is no padding."""
        tokenize: Any = self._tokenize
        inner = getattr(tokenize, "tokenizer", None)
        if inner is None:
            used = ids != 0
            return [int(row.nonzero().max()) + 1 if row.any() else 0 for row in used]
        clean = getattr(tokenize, "clean_fn", str)
        found = inner([clean(text) for text in texts], truncation=False, padding=False)
        return [len(tokens) for tokens in found["input_ids"]]


def _lengths(counts: Sequence[int]) -> npt.NDArray[np.int16]:
    return np.minimum(np.asarray(counts, np.int64), MOST).astype(np.int16)
