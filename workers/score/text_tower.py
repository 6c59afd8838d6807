"""CLIP's text tower on no more columns than the texts need.

In a causal transformer that is pooled at the end-of-text token, nothing after that token reaches
the result: a batch of short texts can leave the padded columns out. The web's alt texts are short:
docs/performance.md.
"""

from typing import Any

import torch


def cuttable(clip: Any) -> bool:
    """Whether columns after the last text's end can be left out of this open_clip model."""
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
