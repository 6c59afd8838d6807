"""Texts into tokens, and how long they were before they were cut."""

import threading
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
    reads. Threads may share one."""

    def __init__(self, tokenize: Callable[[list[str]], torch.Tensor]) -> None:
        self._tokenize = tokenize
        self.context_length = int(getattr(tokenize, "context_length", 0) or 0)
        # a tokenizer of Hugging Face's holds as its state whether it cuts: two calls at once
        # would change it under each other
        self._one_at_a_time = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> Tokens:
        tokenize: Any = self._tokenize
        if isinstance(tokenize, open_clip.SimpleTokenizer) and tokenize.reduction_fn is None:
            return self._simple(texts)
        if not len(texts):  # Hugging Face's refuse an empty list
            empty = torch.empty((0, self.context_length), dtype=torch.int64)
            return Tokens(empty, np.empty(0, np.int16))
        with self._one_at_a_time:
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

    def _counts(self, texts: Sequence[str], ids: torch.Tensor) -> npt.NDArray[np.int64]:
        """int64[n]. Of another tokenizer than open_clip's or Hugging Face's what can be told from
        the tokens: those up to the last that is no padding."""
        tokenize: Any = self._tokenize
        inner = getattr(tokenize, "tokenizer", None)
        if inner is None:
            return _between_padding(ids, 0)
        if getattr(tokenize, "tokenizer_mode", "") == "clips":
            # open_clip's own frame: start, end, and a class token in the last column
            return self._uncut(texts, add_special_tokens=False) + 3
        if getattr(tokenize, "strip_sep_token", False) or inner.pad_token_id is None:
            return self._uncut(texts)
        counts = _between_padding(ids, inner.pad_token_id)
        # what reaches from edge to edge may have been longer
        ends = ids[:, [0, -1]] != inner.pad_token_id
        full = ends.all(dim=1).nonzero().flatten().tolist()
        if full:
            counts[full] = self._uncut([texts[row] for row in full])
        return counts

    def _uncut(self, texts: Sequence[str], **options: Any) -> npt.NDArray[np.int64]:
        """int64[n]: tokens that Hugging Face's tokenizer makes of the texts. verbose: or it warns
        of texts that are too long for its own model."""
        tokenize: Any = self._tokenize
        cleaned = [tokenize.clean_fn(text) for text in texts]
        found = tokenize.tokenizer(
            cleaned, truncation=False, padding=False, verbose=False, **options
        )
        return np.array([len(tokens) for tokens in found["input_ids"]], np.int64)


def _between_padding(ids: torch.Tensor, padding: int) -> npt.NDArray[np.int64]:
    """int64[n]: columns from the first to the last that is no padding, whichever side it is on."""
    used = ids != padding
    columns = torch.arange(1, ids.shape[1] + 1)
    last = (used * columns).amax(dim=1)
    first = (used * columns.flip(0)).amax(dim=1)
    found: npt.NDArray[np.int64] = (last + first - ids.shape[1]).clamp(min=0).numpy()
    return found


def _lengths(counts: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int16]:
    return np.minimum(np.asarray(counts, np.int64), MOST).astype(np.int16)
