"""CLIP's text tower on no more columns than the texts need.

In a causal transformer that is pooled at the end-of-text token, nothing after that token reaches
the result: a batch of short texts can leave the padded columns out. The web's alt texts are short:
docs/performance.md. In a tower of Hugging Face's the padding is masked, and can be left out too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from pairmill.workers.score import torchvision_import as _before_open_clip  # noqa: F401

# isort: split
import open_clip
from open_clip import hf_model

# what they pool is no padding; MaxPooler does not run at all in open_clip 3.3
MASKED_POOLERS = (hf_model.MeanPooler, hf_model.ClsPooler, hf_model.ClsLastHiddenStatePooler)


def needed(clip: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """How many columns of ids (int64[n, context_length]) each text needs (int64[n]) for this
    open_clip model to give what it gives for all."""
    if cuttable(clip):
        return columns
    padding = masked_padding(clip)
    if padding is not None:
        return partial(unpadded, padding=padding)
    return _all


def masked_padding(clip: Any) -> int | None:
    """The padding's id where the model's text tower is Hugging Face's and masks it: columns after
    the last that is none can be left out. None for other towers."""
    tower = _tower(clip)
    if not isinstance(clip, open_clip.CustomTextCLIP) or not isinstance(
        tower, hf_model.HFTextEncoder
    ):
        return None
    return tower.config.pad_token_id if isinstance(tower.pooler, MASKED_POOLERS) else None


def unpadded(ids: torch.Tensor, padding: int) -> torch.Tensor:
    """int64[n]: columns of ids (int64[n, context_length]) up to the last that is no padding."""
    numbered = torch.arange(1, ids.shape[1] + 1, device=ids.device)
    return ((ids != padding) * numbered).amax(dim=1).clamp(min=1)


def _all(ids: torch.Tensor) -> torch.Tensor:
    return torch.full((len(ids),), ids.shape[1])


def cuttable(clip: Any) -> bool:
    """Whether columns after the last text's end can be left out, by ``encode``, of this open_clip
    model: not one with a tower of Hugging Face's."""
    tower = _tower(clip)
    names = ("token_embedding", "positional_embedding", "transformer", "ln_final")
    if not all(hasattr(tower, name) for name in names):
        return False  # a Hugging Face tower
    if getattr(tower, "cls_emb", None) is not None or getattr(tower, "use_pad_mask", False):
        return False
    return _pool_type(tower) == "argmax" and _is_causal(tower.attn_mask)


def columns(ids: torch.Tensor) -> torch.Tensor:
    """int64[n]: how many columns of ids (int64[n, context_length]) each text needs: up to its
    end, the highest token."""
    return ids.argmax(dim=-1) + 1


def encode(clip: Any, ids: torch.Tensor) -> torch.Tensor:
    """What ``clip.encode_text`` gives (not normalised) for ids that were cut after the last
    column that any of them needs: int64[n, columns] to [n, dims]. Only if ``cuttable``."""
    tower = _tower(clip)
    kind = tower.transformer.get_cast_dtype()
    length = ids.shape[1]
    x = tower.token_embedding(ids).to(kind) + tower.positional_embedding[:length].to(kind)
    x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
    # of each text only the pooled token goes on: the norm is of each token by itself
    pooled = tower.ln_final(x[torch.arange(len(ids), device=ids.device), ids.argmax(dim=-1)])
    projection = tower.text_projection
    if projection is None:
        return pooled  # type: ignore[no-any-return]
    if isinstance(projection, torch.nn.Linear):
        return projection(pooled)  # type: ignore[no-any-return]
    return pooled @ projection  # type: ignore[no-any-return]


def _tower(clip: Any) -> Any:
    return getattr(clip, "text", clip)


def _pool_type(tower: Any) -> str | None:
    found: str | None = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    return found


def _is_causal(mask: torch.Tensor | None) -> bool:
    if mask is None:
        return False
    above = torch.ones_like(mask, dtype=torch.bool).triu(1)
    return bool((mask[above] == float("-inf")).all() and (mask[~above] == 0).all())
