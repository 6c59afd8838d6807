"""Make ``import torchvision`` work beside a CPU-only torch. Import this before open_clip.

The registry's torchvision is a CUDA build. Its extension does not load beside a CPU-only
torch, and its Python part then fails at registering fake kernels for two operators that
nobody declared (``operator torchvision::nms does not exist``; torch 2.13, torchvision
0.28). Declared first, they may be registered. Nothing of CLIP calls either.
"""

import torch

SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _declare() -> torch.library.Library:
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    library.define("nms" + SIGNATURE)  # type: ignore[no-untyped-call]
    library.define("qnms" + SIGNATURE)  # type: ignore[no-untyped-call]
    return library


# kept: the declarations last as long as the object
_library = _declare() if torch.version.cuda is None else None
