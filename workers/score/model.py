"""A CLIP model that scores pairs: cosine similarity of image and text, by open_clip.

Radford et al., Learning Transferable Visual Models From Natural Language Supervision
(2021); the models and weights are open_clip's (https://github.com/mlfoundations/open_clip).
"""

import difflib
import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from pairmill.schema.outcomes import ScoreOutcome
from pairmill.workers.errors import Refused
from pairmill.workers.score import torchvision_import as _before_open_clip  # noqa: F401

# isort: split
import open_clip

BATCH_SIZE = 64
# Thumbnails come from volunteers. Of Pillow's readers only those of what a downloader makes see
# them (the one for EPS starts a program), and only up to what a thumbnail is at most: 256 x 2,560.
FORMATS = ("JPEG", "WEBP")
MAX_PIXELS = 1_000_000


@dataclass
class Scores:
    """What became of n pairs; row i is pair i.

    outcomes: int16[n], of ScoreOutcome. similarity: float32[n], NaN unless scored.
    image_embedding, text_embedding: float16[n, dims], L2-normalised, zero unless scored.
    """

    outcomes: npt.NDArray[np.int16]
    similarity: npt.NDArray[np.float32]
    image_embedding: npt.NDArray[np.float16]
    text_embedding: npt.NDArray[np.float16]


class Model:
    """A loaded model. name, pretrained: what it was loaded by. dims: length of an embedding.
    digest: sha256 of its weights, hexadecimal, over the names, shapes and float32 values of its
    tensors in order of name: the same for one checkpoint in any file format."""

    def __init__(
        self,
        name: str,
        pretrained: str | None,
        clip: torch.nn.Module,
        preprocess: Any,
        tokenize: Any,
        device: torch.device,
    ) -> None:
        self.name = name
        self.pretrained = pretrained
        self._clip = clip
        self._preprocess = preprocess
        self._tokenize = tokenize
        self._device = device
        self.digest = _digest(clip)
        with torch.inference_mode():
            self.dims = int(clip.encode_text(tokenize(["a"]).to(device)).shape[-1])  # type: ignore[operator]

    def score(self, images: Sequence[bytes], texts: Sequence[str]) -> Scores:
        """Score images (encoded files) against texts, pair by pair.

        An image that cannot be decoded, or a model that gives NaN or an infinity, is that row's
        outcome and no error. Raises ValueError if there are not as many texts as images.
        """
        if len(images) != len(texts):
            raise ValueError(f"{len(images)} images cannot be paired with {len(texts)} texts")
        scores = _empty_scores(len(images), self.dims)
        for start in range(0, len(images), BATCH_SIZE):
            self._score_batch(scores, start, images[start : start + BATCH_SIZE], texts)
        return scores

    @torch.inference_mode()
    def _score_batch(
        self, scores: Scores, start: int, images: Sequence[bytes], texts: Sequence[str]
    ) -> None:
        pixels = [self._pixels(image) for image in images]
        rows = [start + i for i, p in enumerate(pixels) if p is not None]
        scores.outcomes[[start + i for i, p in enumerate(pixels) if p is None]] = (
            ScoreOutcome.BROKEN_THUMBNAIL
        )
        if not rows:
            return
        batch = torch.stack([p for p in pixels if p is not None]).to(self._device)
        tokens = self._tokenize([texts[row] for row in rows]).to(self._device)
        # normalised and multiplied in float32, whatever the towers compute in
        image = torch.nn.functional.normalize(self._clip.encode_image(batch).float(), dim=-1)  # type: ignore[operator]
        text = torch.nn.functional.normalize(self._clip.encode_text(tokens).float(), dim=-1)  # type: ignore[operator]
        similarity = (image * text).sum(dim=-1).cpu().numpy()
        finite = np.isfinite(similarity)
        good = np.asarray(rows)[finite]
        scores.outcomes[np.asarray(rows)[~finite]] = ScoreOutcome.NOT_FINITE
        scores.outcomes[good] = ScoreOutcome.SCORED
        scores.similarity[good] = similarity[finite]
        scores.image_embedding[good] = image.cpu().numpy()[finite]
        scores.text_embedding[good] = text.cpu().numpy()[finite]

    def _pixels(self, data: bytes) -> torch.Tensor | None:
        """The model's own preprocessing of one encoded image; None if it cannot be decoded."""
        image = _decoded(data)
        if image is None:
            return None
        pixels: torch.Tensor = self._preprocess(image)
        return pixels


def load(name: str, pretrained: str | None = None, *, device: str = "auto") -> Model:
    """Load a model.

    name: one of open_clip's, a JSON file of the shape of open_clip's own model configurations, or
    a folder with ``open_clip_config.json`` and ``open_clip_model.safetensors``, as open_clip itself
    saves them. pretrained: open_clip's tag or a checkpoint's path; a path for a JSON file, none for
    a folder. device: cpu, cuda, cuda:1 …, or auto.

    Raises Refused, with a sentence, for a model, tag, file or device that is not there.
    """
    where = _device(device)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if Path(name).is_dir():
        known = _folder(name, pretrained)
    elif name.endswith(".json"):
        known = _configuration(Path(name), pretrained)
    else:
        known = _named(name, pretrained)
    try:
        clip, _, preprocess = open_clip.create_model_and_transforms(
            known, pretrained=pretrained or None, device=where, weights_only=True
        )
        tokenize = open_clip.get_tokenizer(known)
    except Exception as error:
        # for a file that is another model's, or none, open_clip and torch raise nearly anything
        # (AssertionError for other widths, TypeError for an unknown option)
        raise Refused(_reason(name, pretrained, error)) from None
    return Model(name, pretrained, clip.eval(), preprocess, tokenize, where)


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise Refused(f"unknown device {wanted!r}: it is cpu, cuda, cuda:N or auto") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise Refused(f"there is no device {wanted}: torch sees {torch.cuda.device_count()} GPUs")
    return device


def _folder(folder: str, pretrained: str | None) -> str:
    if pretrained:
        raise Refused(f"the folder {folder} holds its own weights: leave --pretrained out")
    for file in ("open_clip_config.json", "open_clip_model.safetensors"):
        if not (Path(folder) / file).is_file():
            raise Refused(f"the model's folder {folder} has no {file}")
    return f"local-dir:{folder}"


def _configuration(file: Path, pretrained: str | None) -> str:
    """Make a model configuration known to open_clip, which calls it by the file's name."""
    try:
        configuration = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise Refused(f"cannot read the model's configuration {file}: {error}") from None
    needed = ("embed_dim", "vision_cfg", "text_cfg")
    if not isinstance(configuration, dict) or not configuration.keys() >= set(needed):
        raise Refused(f"{file} is no configuration of open_clip's: it needs {', '.join(needed)}")
    if not pretrained or not Path(pretrained).is_file():
        raise Refused(f"the model of {file} needs weights: --pretrained with a checkpoint's path")
    open_clip.add_model_config(file)
    return file.stem


def _named(name: str, pretrained: str | None) -> str:
    """Refuse names and tags that open_clip does not have, with those that come close."""
    names = open_clip.list_models()
    if name not in names:
        close = (
            ", ".join(difflib.get_close_matches(name, names, 3)) or "see open_clip.list_models()"
        )
        raise Refused(f"open_clip has no model {name!r}, and there is no such folder: {close}")
    tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "no tags: only paths"
    if not pretrained:
        raise Refused(f"model {name} needs weights: --pretrained with a path or one of {tags}")
    if not open_clip.get_pretrained_cfg(name, pretrained) and not Path(pretrained).is_file():
        raise Refused(f"{pretrained!r} is no file and no weights of {name}: {tags}")
    return name


def _reason(name: str, pretrained: str | None, error: Exception) -> str:
    said = " ".join(str(error).split())[:300]
    if said.startswith("Failed to download weights"):
        return (
            f"cannot download the weights {pretrained} of {name}: connect this machine to the"
            f" network, or give --pretrained the path of a checkpoint ({said})"
        )
    if isinstance(error, UnpicklingError):
        # torch's own text advises to load it unsafely
        return (
            f"{pretrained} is no checkpoint of plain tensors, and none that could run code is"
            " loaded: give a .safetensors file, or a state dict as torch.save writes it"
        )
    return (
        f"cannot load model {name} with {pretrained or 'its own weights'}: are they this model's?"
        f" ({type(error).__name__}: {said})"
    )


def _decoded(data: bytes) -> Image.Image | None:
    """RGB; None for what is no thumbnail."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.convert("RGB") if image.width * image.height <= MAX_PIXELS else None
    except Exception:
        # Pillow's readers raise nearly anything on hostile bytes (struct.error, IndexError …)
        return None


def _digest(clip: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(clip.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def _empty_scores(n: int, dims: int) -> Scores:
    return Scores(
        outcomes=np.full(n, ScoreOutcome.NOT_FINITE, np.int16),
        similarity=np.full(n, np.nan, np.float32),
        image_embedding=np.zeros((n, dims), np.float16),
        text_embedding=np.zeros((n, dims), np.float16),
    )
