"""What the stored thumbnail costs a similarity: against the same image at its full size.

    python bench/thumbnail_cost.py [--models FOLDER_OR_NAME,…] [--json]

Real images: those of warc/web-2008.warc.gz in the folder that PAIRMILL_SHARED names, where it is:
docs/real-input.md. Beside them photographs of bench/images.py, and drawings of the demo at 1024 x
768. The thumbnail is the downloader's (256 pixels on the short side, JPEG), the full image is
decoded by Pillow as the downloader would: first frame, transparency over white, turned as EXIF
says. Both go through the model's own transform and towers in float32. not_reduced: images that
were no larger than a thumbnail already; they are only encoded again.

A model of open_clip's gets random weights, since trained ones are downloads: of it take the cosine
of both embeddings, and of the similarity only the order of magnitude.
"""

import io
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from images import images
from PIL import Image, ImageOps
from warcio.archiveiterator import ArchiveIterator

from pairmill.ops.demo import model as demo
from pairmill.ops.demo.drawings import draw
from pairmill.ops.demo.model.train import HELD_OUT
from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.decode import decode
from pairmill.workers.score.model import Model, load
from pairmill.workers.score.model import open_clip as clip

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def warc_images() -> list[bytes]:
    """Bodies of the responses that the downloader makes a thumbnail of."""
    file = Path(os.environ.get("PAIRMILL_SHARED", SHARED)) / "warc" / "web-2008.warc.gz"
    if not file.is_file():
        print(f"no {file}: without real images", file=sys.stderr)
        return []
    with file.open("rb") as stream:
        bodies = [
            record.content_stream().read()
            for record in ArchiveIterator(stream)
            if record.rec_type == "response"
        ]
    return [body for body in bodies if decode(body).outcome is Outcome.SUCCESS]


def drawings(count: int = 40) -> list[bytes]:
    found = []
    for seed in range(HELD_OUT, HELD_OUT + count):
        out = io.BytesIO()
        draw(seed, (1024, 768))[0].save(out, "JPEG", quality=92)
        found.append(out.getvalue())
    return found


def full(body: bytes) -> Image.Image:
    with Image.open(io.BytesIO(body)) as image:
        turned = ImageOps.exif_transpose(image)
        if turned.mode in ("RGBA", "LA", "PA") or "transparency" in turned.info:
            clear = turned.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert(
                "RGB"
            )
        return turned.convert("RGB")


def loaded(name: str) -> tuple[Model, Any]:
    """A model and its own transform."""
    if Path(name).is_dir():
        model = load(name, device="cpu")
        preprocess = clip.create_model_and_transforms(f"local-dir:{name}")[2]
        return model, preprocess
    torch.manual_seed(1)
    made, _, preprocess = clip.create_model_and_transforms(name)
    tokenize = clip.get_tokenizer(name)
    return Model(name, None, made.eval(), preprocess, tokenize, torch.device("cpu")), preprocess


@torch.inference_mode()
def cost(model: Model, preprocess: Any, bodies: list[bytes]) -> dict[str, Any]:
    """Every image against a caption of the demo's, each its own."""
    originals = [full(body) for body in bodies]
    small = [decode(body).thumbnail for body in bodies]
    texts = [draw(HELD_OUT + n, (8, 8))[1] for n in range(len(bodies))]
    tokens = model.tokenizer(texts)
    normalise = torch.nn.functional.normalize
    big = torch.cat([model._encode_image(preprocess(image)[None]) for image in originals])
    large = normalise(big.float(), dim=-1).numpy()
    embedded = model.embed([model.preprocessor.decode(small)], lambda: tokens)
    before = (large * embedded.text).sum(axis=1)
    change = np.abs(before - embedded.similarity)
    return {
        "images": len(bodies),
        "not_reduced": sum(min(image.size) <= 256 for image in originals),
        "mean": float(change.mean()),
        "max": float(change.max()),
        "spread_of_similarity": float(before.std()),
        "cosine_of_both_mean": float((large * embedded.image).sum(axis=1).mean()),
        "cosine_of_both_min": float((large * embedded.image).sum(axis=1).min()),
    }


def main(
    models: Annotated[str, typer.Option("--models")] = f"{demo.PATH},ViT-B-32",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    sets = {
        "web-2008": warc_images(),
        "photographs": list(images(32, 0, 8).values()),
        "drawings": drawings(),
    }
    result = []
    for name in models.split(","):
        model, preprocess = loaded(name)
        for kind, bodies in sets.items():
            if bodies:
                row = {"model": Path(name).name, "of": kind, **cost(model, preprocess, bodies)}
                result.append(row)
                if not as_json:
                    print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
                                    for k, v in row.items()))  # fmt: skip
    if as_json:
        print(json.dumps({"thumbnail_cost": result}))


if __name__ == "__main__":
    typer.run(main)
