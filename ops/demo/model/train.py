"""Train the demo's model on drawings and their captions. Seeded; 8 to 20 minutes on two cores.

    python -m pairmill.ops.demo.model.train --out FOLDER

Writes open_clip_config.json and open_clip_model.safetensors (float16), and prints how well
matching captions are told from others on drawings that it never saw (AUC).
"""

import io
import shutil
from pathlib import Path

import numpy as np
import torch
import typer
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional

from pairmill.ops.demo.drawings import Attributes, attributes, caption, draw
from pairmill.ops.demo.model import PATH
from pairmill.workers.score.model import load

# isort: split
import open_clip  # the line above brought what it needs before it

HELD_OUT = 1_000_000  # seeds from here on are never trained on; the demo's site uses them too


def thumbnail(seed: int) -> bytes:
    """A drawing as the downloader hands it on: JPEG, short side 256."""
    image, _, _ = draw(seed, (341, 256))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=88)
    return out.getvalue()


def other_caption(seed: int, what: Attributes) -> str:
    """The caption of another drawing, which differs in more than its wording."""
    other = seed + 1
    while attributes(other) == what:
        other += 1
    return caption(other, attributes(other))


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a matching pair scores above another (Mann-Whitney U / mn)."""
    higher = (positive[:, None] > negative[None, :]).mean()
    return float(higher + 0.5 * (positive[:, None] == negative[None, :]).mean())


def evaluate(folder: Path, pairs: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Similarities of held-out drawings with their own captions, and with others'."""
    model = load(str(folder), device="cpu")
    seeds = range(HELD_OUT, HELD_OUT + pairs)
    images = [thumbnail(seed) for seed in seeds]
    own = model.score(images, [caption(seed, attributes(seed)) for seed in seeds])
    others = model.score(images, [other_caption(seed, attributes(seed)) for seed in seeds])
    return own.similarity, others.similarity


def loss(
    image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, kind: torch.Tensor
) -> torch.Tensor:
    """CLIP's loss, where drawings of the same attributes in a batch match each other too."""
    logits = scale * image @ text.T
    target = (kind[:, None] == kind[None, :]).float()
    target = target / target.sum(dim=1, keepdim=True)
    return (
        functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
    ) / 2


def train(
    out: Path = typer.Option(..., help="Where the model goes."),
    drawings: int = typer.Option(6000, help="How many to train on."),
    epochs: int = typer.Option(30, help="How often each is seen, with another wording each time."),
    batch: int = typer.Option(200, help="Drawings in a step."),
) -> None:
    """Train, save, and say how good it is."""
    out.mkdir(parents=True, exist_ok=True)
    if out.resolve() != PATH:
        shutil.copy(PATH / "open_clip_config.json", out)
    torch.manual_seed(0)
    name = f"local-dir:{out}"
    clip, _, preprocess = open_clip.create_model_and_transforms(name, load_weights=False)
    tokenize = open_clip.get_tokenizer(name)
    pixels = torch.stack(
        [preprocess(Image.open(io.BytesIO(thumbnail(s)))) for s in range(drawings)]
    )
    what = [attributes(s) for s in range(drawings)]
    kinds = {a: i for i, a in enumerate(dict.fromkeys(what))}
    kind = torch.tensor([kinds[a] for a in what])
    steps = epochs * (drawings // batch)
    optimizer = torch.optim.AdamW(clip.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    clip.train()
    for epoch in range(epochs):
        order = torch.randperm(drawings)
        for start in range(0, drawings - batch + 1, batch):
            rows = order[start : start + batch]
            texts = [caption(int(s) + epoch * drawings, what[int(s)]) for s in rows]
            image, text, scale = clip(pixels[rows], tokenize(texts))[:3]
            error = loss(image, text, scale, kind[rows])
            optimizer.zero_grad()
            error.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {error.item():.3f}", flush=True)
    state = {k: v.half().contiguous() for k, v in clip.state_dict().items()}
    save_file(state, out / "open_clip_model.safetensors")
    own, others = evaluate(out)
    for label, values in (("matching", own), ("other", others)):
        low, middle, high = np.percentile(values, (5, 50, 95))
        print(f"{label}: similarity 5 % {low:.2f}, median {middle:.2f}, 95 % {high:.2f}")
    print(f"AUC {auc(own, others):.4f} on {len(own)} drawings that it never saw")


if __name__ == "__main__":
    typer.run(train)
