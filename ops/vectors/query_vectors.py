"""Query vectors: a text or an image, embedded by the model of the index."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pairmill.ops.errors import UserError
from pairmill.schema.outcomes import ScoreOutcome
from pairmill.workers.errors import Refused
from pairmill.workers.score import model as models

SHORT_SIDE, LONG_SIDE = 256, 2_560  # pixels of a thumbnail: what is indexed is of thumbnails
Vector = npt.NDArray[np.float32]


def load(indexed: dict[str, Any], name: str | None, pretrained: str, device: str) -> models.Model:
    """The model of an index, by its own name or as the user names it.

    indexed: name, pretrained, digest. Raises UserError if the loaded weights are others, Refused if
    nothing can be loaded.
    """
    own = name is None
    if name is None:
        name, pretrained = indexed["name"], pretrained or indexed["pretrained"]
    try:
        model = models.load(name, pretrained or None, device=device)
    except Refused as refused:
        if own:
            raise UserError(f"{refused}; name the index's model with --model") from None
        raise
    if model.digest != indexed["digest"]:
        raise UserError(
            f"{name} {pretrained}".rstrip()
            + f" has the weights {model.digest[:12]}…, and the index"
            f" is of {indexed['name']} with {indexed['digest'][:12]}…: name that model with --model"
            " and --pretrained"
        )
    return model


def of_text(model: models.Model, text: str) -> Vector:
    """float32[dims]. Raises UserError for an empty text."""
    if not text.strip():
        raise UserError("--text is empty")
    return _finite(model.encode_texts([text])[0])


def of_image(model: models.Model, path: Path) -> Vector:
    """float32[dims] of an image file, made a thumbnail first, as every indexed image was. Raises
    UserError for what is no image."""
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
        raise UserError(f"{path} is no image that can be read: {error}") from None
    scale = min(1.0, SHORT_SIDE / min(upright.size), LONG_SIDE / max(upright.size))
    size = (max(1, round(upright.width * scale)), max(1, round(upright.height * scale)))
    file = io.BytesIO()
    upright.resize(size, Image.Resampling.LANCZOS).save(file, "WEBP", lossless=True)
    scores = model.score([file.getvalue()], ["an image"])
    if scores.outcomes[0] == ScoreOutcome.BROKEN_THUMBNAIL:
        raise UserError(f"{path} makes no thumbnail that the model reads: it is too long and thin")
    return _finite(scores.image_embedding[0].astype(np.float32))


def _finite(vector: Vector) -> Vector:
    if not np.isfinite(vector).all() or not vector.any():
        raise UserError("the model gave no embedding: NaN or an infinity")
    return vector
