"""The taggers that a scorer computes beside its model: heads, whose weights the database has, and
taggers of pixels, whose weights it was started with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from pairmill.workers.errors import Refused
from pairmill.workers.safe_text import say
from pairmill.workers.score.calls import RegisteredTagger, ScoreQueue
from pairmill.workers.score.heads import Head, Tags


class PixelTagger(Protocol):
    """What gives a number for each thumbnail. digest: of its weights."""

    digest: str

    def squeezed(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """What of a thumbnail ``tag`` wants to see; threads call it."""

    def tag(self, images: Sequence[npt.NDArray[np.uint8]]) -> Tags: ...


@dataclass(frozen=True)
class NamedHead:
    """A head, and the row of mill.model that its tags belong to."""

    model_id: int
    head: Head


@dataclass(frozen=True)
class NamedPixels:
    """A tagger of pixels, and the row of mill.model that its tags belong to."""

    model_id: int
    tagger: PixelTagger


class Taggers:
    """Those of one clip model, as the database knew them at the last ``refresh``.

    heads, pixels: by digest, those that can be computed here: all heads, and the taggers of pixels
    whose weights were given.
    """

    def __init__(self, model_digest: str, pixels: Sequence[PixelTagger] = ()) -> None:
        self._model_digest = model_digest
        self._own = {tagger.digest: tagger for tagger in pixels}
        self._unusable: set[str] = set()
        self._unknown: set[str] = set()
        self.heads: dict[str, NamedHead] = {}
        self.pixels: dict[str, NamedPixels] = {}

    def refresh(self, queue: ScoreQueue) -> None:
        """Read the registered taggers anew; an admin may have added one since."""
        known = queue.taggers(self._model_digest)
        heads: dict[str, NamedHead] = {}
        self.pixels = {}
        for tagger in known:
            if own := self._own.get(tagger.digest):
                self.pixels[tagger.digest] = NamedPixels(tagger.model_id, own)
            elif tagger.kind != "pixels" and (head := self._head(queue, tagger)):
                heads[tagger.digest] = NamedHead(tagger.model_id, head)
        self.heads = heads
        for digest in self._own.keys() - self.pixels.keys() - self._unknown:
            # an admin may add it any time
            say(
                f"the database has no tagger of this model with the given weights, sha256 {digest}:"
                " they are not used until an admin adds them with pairmill model add",
                err=True,
            )
            self._unknown.add(digest)

    @property
    def digests(self) -> list[str]:
        return [*self.heads, *self.pixels]

    def _head(self, queue: ScoreQueue, tagger: RegisteredTagger) -> Head | None:
        if tagger.digest in self._unusable:
            return None
        if had := self.heads.get(tagger.digest):
            return had.head
        try:
            weights = queue.weights(tagger.digest)
            if weights is None:
                raise Refused("the database has no weights of it")
            head = Head.from_bytes(weights)
            if head.digest != tagger.digest:
                raise Refused(f"its weights have sha256 {head.digest}, not {tagger.digest}")
        except Refused as problem:
            # its own work waits for an admin; everything else goes on
            say(f"the tagger {tagger.name} cannot be used: {problem}", err=True)
            self._unusable.add(tagger.digest)
            return None
        return head
