"""A CLIP model that scores pairs: cosine similarity of image and text, by open_clip.

Radford et al., Learning Transferable Visual Models From Natural Language Supervision
(2021); the models and weights are open_clip's (https://github.com/mlfoundations/open_clip).
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pairmill.schema.outcomes import ScoreOutcome
from pairmill.workers.errors import Refused, TaskFailed
from pairmill.workers.safe_text import say
from pairmill.workers.score import compiled as compiling
from pairmill.workers.score import device_lost, text_tower
from pairmill.workers.score import torchvision_import as _before_open_clip  # noqa: F401
from pairmill.workers.score.batcher import by_length, gathered
from pairmill.workers.score.digest import weights_digest
from pairmill.workers.score.heads import Head, Tags
from pairmill.workers.score.loading import (
    check_hugging_face,
    device_of,
    dtype_of,
    known_name,
    reason,
)
from pairmill.workers.score.preprocess import PixelBatch, Preprocessor
from pairmill.workers.score.tokenizer import Tokenizer, Tokens

# isort: split
import open_clip

BATCH_SIZES = {"cpu": 32, "cuda": 256}
CHUNK = 32  # images that one thread decodes at a time
COLUMN_STEP = 8  # text columns come in multiples of this


@dataclass
class Scores:
    """What became of n pairs; row i is pair i.

    outcomes: int16[n], of ScoreOutcome. similarity: float32[n], NaN unless scored.
    image_embedding, text_embedding: float16[n, dims], L2-normalised, zero unless scored.
    text_tokens: int16[n], tokens of the text before truncation, see ``Tokens``.
    """

    outcomes: npt.NDArray[np.int16]
    similarity: npt.NDArray[np.float32]
    image_embedding: npt.NDArray[np.float16]
    text_embedding: npt.NDArray[np.float16]
    text_tokens: npt.NDArray[np.int16]


@dataclass
class Embeddings:
    """Of n pairs, those whose image could be decoded. rows: int64[m], which. image, text:
    float32[m, dims], L2-normalised. similarity: float32[m]. tags: of each head given, of m rows.
    text_tokens: int16[n]. wrong: rows whose thumbnail is another picture's."""

    rows: npt.NDArray[np.int64]
    image: npt.NDArray[np.float32]
    text: npt.NDArray[np.float32]
    similarity: npt.NDArray[np.float32]
    tags: list[Tags]
    text_tokens: npt.NDArray[np.int16]
    wrong: list[int]


def _tell(sentence: str) -> None:
    say(sentence, err=True)


@dataclass
class Watch:
    """Who follows a computation. say: one sentence for the operator. beat: called before each
    batch; what it raises ends the computation."""

    say: Callable[[str], None] = _tell
    beat: Callable[[], None] = field(default=lambda: None)


class Model:
    """A loaded model. name, pretrained: what it was loaded by. dims: length of an embedding.
    digest: sha256 of its weights, hexadecimal, over the names, shapes and float32 values of its
    tensors in order of name: the same for one checkpoint in any file format, whatever precision it
    computes in. batch_size: rows that go through a tower at once; halved where memory is short.
    preprocessor, tokenizer: prepare its input; threads may use them beside it."""

    def __init__(
        self,
        name: str,
        pretrained: str | None,
        clip: torch.nn.Module,
        preprocess: Any,
        tokenize: Any,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        compiled: bool = False,
    ) -> None:
        self.name = name
        self.pretrained = pretrained
        self.digest = weights_digest(clip)
        self.device = device
        self.dtype = dtype
        self.batch_size = BATCH_SIZES.get(device.type, BATCH_SIZES["cpu"])
        self.preprocessor = Preprocessor(preprocess, device)
        self.tokenizer = Tokenizer(tokenize)
        towers: Any = clip
        # what similarities are multiplied by in training, before the softmax: in bf16 CLIP's 100
        # would be 98.9
        self.logit_scale = float(towers.logit_scale.detach().float().exp())
        towers.to(dtype)
        self._needed = text_tower.needed(clip)
        self._compiled = compiled
        self._encode_image: Any = towers.encode_image
        self._encode_text: Any = (
            partial(text_tower.encode, clip) if text_tower.cuttable(clip) else towers.encode_text
        )
        with torch.inference_mode():
            ids = self.tokenizer(["a"]).ids.to(device)
            self.dims = int(self._encode_text(ids).shape[-1])
        self._step = compiling.column_step(ids.shape[1]) if compiled else COLUMN_STEP
        if compiled:
            self._encode_image = torch.compile(self._encode_image, dynamic=False)
            self._encode_text = torch.compile(self._encode_text, dynamic=False)

    def score(self, images: Sequence[bytes], texts: Sequence[str]) -> Scores:
        """Score images (encoded files) against texts, pair by pair.

        An image that cannot be decoded, or a model that gives NaN or an infinity, is that row's
        outcome and no error. Raises ValueError if there are not as many texts as images.
        """
        if len(images) != len(texts):
            raise ValueError(f"{len(images)} images cannot be paired with {len(texts)} texts")
        starts = range(0, len(images), CHUNK)
        pixels = (self.preprocessor.decode(images[i : i + CHUNK], start=i) for i in starts)
        return self.scores(self.embed(pixels, lambda: self.tokenizer(texts)))

    @torch.inference_mode()
    def embed(
        self,
        pixels: Iterable[PixelBatch],
        tokens: Callable[[], Tokens],
        heads: Sequence[Head] = (),
        watch: Watch | None = None,
    ) -> Embeddings:
        """Embed the pairs of images and texts.

        pixels: of the preprocessor, in order, or an iterator that makes them. tokens: called after
        the images, for the tokens of all texts. Normalised and multiplied in float32, whatever the
        towers compute in.

        Raises TaskFailed where one row alone does not fit into memory, Refused where the device
        does not answer any more.
        """
        watch = watch or Watch()
        with device_lost.noticed(self.device):
            return self._embed(pixels, tokens, heads, watch)

    def _embed(
        self,
        pixels: Iterable[PixelBatch],
        tokens: Callable[[], Tokens],
        heads: Sequence[Head],
        watch: Watch,
    ) -> Embeddings:
        rows: list[int] = []
        wrong: list[int] = []

        def arriving() -> Iterable[torch.Tensor]:
            for chunk in pixels:
                rows.extend(chunk.rows)
                wrong.extend(chunk.wrong)
                if chunk.rows:
                    yield chunk.data.to(self.device, non_blocking=True)

        images = [
            self._through(self._image, x, watch) for x in gathered(arriving(), self.batch_size)
        ]
        known = tokens()
        kept = np.asarray(rows, np.int64)
        empty = torch.empty((0, self.dims), device=self.device)
        image = torch.cat([*images, empty])
        text = self._texts(known.ids[kept], watch)
        similarity = (image * text).sum(dim=-1)
        tags = [head.tag(image) for head in heads]
        a, b, c = (x.cpu().numpy() for x in (image, text, similarity))
        return Embeddings(kept, a, b, c, tags, known.lengths, wrong)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32[n, dims], L2-normalised."""
        return self._texts(self.tokenizer(texts).ids, Watch()).cpu().numpy()

    def text_columns(self, ids: torch.Tensor) -> list[int]:
        """The numbers of columns that batches may have, of ids (int64[n, context_length]) of short
        texts: one where the tower reads all of them always."""
        context = ids.shape[1]
        if int(self._needed(ids).max()) == context:
            return [context]
        return [*range(self._step, context, self._step), context]

    @torch.inference_mode()
    def encode_ids(self, ids: torch.Tensor) -> torch.Tensor:
        """float32[n, dims] on the device, L2-normalised, of ids as they are: int64[n, columns]."""
        return self._through(self._encode_text, ids.to(self.device), Watch())

    def _texts(self, ids: torch.Tensor, watch: Watch) -> torch.Tensor:
        """float32[n, dims] in the order of ids; computed the shortest first."""
        context = ids.shape[1]
        needed = self._needed(ids).tolist()
        result = torch.empty((len(ids), self.dims), device=self.device)
        for batch in by_length(needed, self.batch_size, self._step, context):
            rows = torch.from_numpy(batch.rows)
            part = ids[rows, : batch.columns].to(self.device)
            result[rows.to(self.device)] = self._through(self._encode_text, part, watch)
        return result

    def _image(self, data: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self._encode_image(self.preprocessor.normalised(data).to(self.dtype))
        return found

    def _through(
        self, encode: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor, watch: Watch
    ) -> torch.Tensor:
        """float32[n, dims], normalised; in smaller pieces from the moment that memory is short."""
        size = self.batch_size
        while True:
            watch.beat()
            try:
                pieces = torch.split(batch, self.batch_size)
                found = torch.cat([self._piece(encode, piece) for piece in pieces])
                break
            except RuntimeError as error:
                if not device_lost.short_of_memory(error):
                    raise
                said = str(error).partition(".")[0]
            # out of the handler: the error's frames hold what has to be freed
            self._halve(size, said)
        if self.batch_size < size:
            watch.say(f"out of memory on {self.device}: batches of {self.batch_size} from now on")
        return torch.nn.functional.normalize(found.float(), dim=-1)

    def _piece(
        self, encode: Callable[[torch.Tensor], torch.Tensor], piece: torch.Tensor
    ) -> torch.Tensor:
        missing = self.batch_size - len(piece)
        if not self._compiled or missing <= 0:
            return encode(piece)
        # one shape, one program: the last batch is filled up with its first row
        filled = torch.cat([piece, piece[:1].expand(missing, *piece.shape[1:])])
        return encode(filled)[: len(piece)]

    def _halve(self, size: int, said: str) -> None:
        """size: to go back to where nothing helps: the next task may find more memory."""
        if self.batch_size == 1:
            self.batch_size = size
            raise TaskFailed(f"one row alone does not fit into memory of {self.device}: {said}")
        self.batch_size //= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def scores(self, e: Embeddings) -> Scores:
        """With a named outcome for every row; embeddings rounded to float16."""
        n = len(e.text_tokens)
        scores = Scores(
            outcomes=np.full(n, ScoreOutcome.BROKEN_THUMBNAIL, np.int16),
            similarity=np.full(n, np.nan, np.float32),
            image_embedding=np.zeros((n, self.dims), np.float16),
            text_embedding=np.zeros((n, self.dims), np.float16),
            text_tokens=e.text_tokens,
        )
        finite = np.isfinite(e.similarity)
        good = e.rows[finite]
        scores.outcomes[e.wrong] = ScoreOutcome.WRONG_THUMBNAIL
        scores.outcomes[e.rows] = ScoreOutcome.NOT_FINITE
        scores.outcomes[good] = ScoreOutcome.SCORED
        scores.similarity[good] = e.similarity[finite]
        scores.image_embedding[good] = e.image[finite]
        scores.text_embedding[good] = e.text[finite]
        return scores


def load(
    name: str,
    pretrained: str | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    compiled: bool = False,
    threads: int | None = None,
) -> Model:
    """Load a model.

    name: one of open_clip's, a JSON file of the shape of open_clip's own model configurations, or
    a folder with ``open_clip_config.json`` and ``open_clip_model.safetensors``, as open_clip itself
    saves them. pretrained: open_clip's tag or a checkpoint's path; a path for a JSON file, none for
    a folder. device: cpu, cuda, cuda:1 …, or auto. precision: of the towers; fp32, bf16, fp16, or
    auto: bf16 on a CUDA device that computes in it, fp32 elsewhere. compiled: by torch.compile,
    before this returns. threads: of the towers on a CPU; all that this process may use by default.

    Raises Refused, with a sentence, for a model, tag, file, precision or device that is not there,
    and where torch cannot compile here.
    """
    where = device_of(device)
    dtype = dtype_of(precision, where)
    if dtype == torch.float32:
        # or cuDNN computes the images' first layer in TF32, with the 10 bits of fp16
        torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    known = known_name(name, pretrained)
    try:
        check_hugging_face(name, known)
        clip, _, preprocess = open_clip.create_model_and_transforms(
            known, pretrained=pretrained or None, device=where, weights_only=True
        )
        tokenize = open_clip.get_tokenizer(known)
    except Refused:
        raise
    except Exception as error:
        # for a file that is another model's, or none, open_clip and torch raise nearly anything
        # (AssertionError for other widths, TypeError for an unknown option)
        raise Refused(reason(name, pretrained, error)) from None
    model = Model(
        name, pretrained, clip.eval(), preprocess, tokenize, where, dtype, compiled=compiled
    )
    if compiled:
        compiling.compile_now(model)
    return model
