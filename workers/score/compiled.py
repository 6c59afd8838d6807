"""A model's programs by torch.compile: few of them, and all made before the first task."""

import io
import time
from typing import TYPE_CHECKING

from PIL import Image

from pairmill.workers.errors import Refused
from pairmill.workers.safe_text import say

if TYPE_CHECKING:
    from pairmill.workers.score.model import Model

COLUMN_STEP = 16
# each number of columns is a program of its own, and past 8 of one function torch goes back to
# running it uncompiled, with a warning in the log (torch._dynamo.config.recompile_limit)
PROGRAMS = 5


def column_step(context: int) -> int:
    """The multiple that columns of a text of at most ``context`` come in: at most 5 shapes."""
    return max(COLUMN_STEP, -(-context // (8 * PROGRAMS)) * 8)


def compile_now(model: "Model") -> None:
    """Make every program that tasks will ask for. Within a task the first ones would be made under
    its lease, which ends after 300 s without a batch; and where nothing can be compiled (no C
    compiler, a GPU that Triton does not know) task after task would fail.

    Raises Refused, with a sentence, where torch cannot compile the model here.
    """
    begun = time.monotonic()
    say(f"compiling {model.name}: a minute or more", err=True)
    ids = model.tokenizer(["a"]).ids
    try:
        model.embed([model.preprocessor.decode([_picture()])], lambda: model.tokenizer(["a"]))
        for columns in model.text_columns(ids):
            model.encode_ids(ids[:, :columns])
    except Refused:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise Refused(
            f"torch cannot compile {model.name} on this machine: leave --compile out"
            f" ({type(error).__name__}: {said})"
        ) from None
    say(f"compiled in {time.monotonic() - begun:.0f} s", err=True)


def _picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (256, 256)).save(out, "JPEG")
    return out.getvalue()
