"""Pairs and models that bench/score.py scores, and what it holds the scorer against:
clip-retrieval's loop, and the matrix product."""

import copy
import random
import resource
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import default_collate
from torch.utils.flop_counter import FlopCounterMode
from wat import LANGUAGES

from pairmill.workers.dhash import dhash
from pairmill.workers.score import text_tower
from pairmill.workers.score.model import Model
from pairmill.workers.score.model import open_clip as clip
from pairmill.workers.score.pipeline import Thumbnails
from pairmill.workers.score.preprocess import decoded

WORDS = dict(LANGUAGES)["en"]
WORKERS = 4  # clip-retrieval's own default, num_prepro_workers
SIZES = {"cpu": 2048, "cuda": 8192}  # of the square matrices


# ---- models and pairs -------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    device: torch.device
    dtype: torch.dtype
    compiled: bool
    pairs: int | None
    threads: int
    seconds: float  # to aim at, of each of the longer measurements
    rounds: int


@dataclass
class Side:
    """A model, what feeds it, and its plain parts, for the other loop. towers: the model's own;
    clip: others with the same weights, in float32."""

    name: str
    model: Model
    towers: Any
    clip: Any
    preprocess: Any
    tokenize: Any
    thumbnails: list[bytes]
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._hashes = [dhash(decoded(image)) for image in self.thumbnails]

    def pair(self, row: int) -> tuple[bytes, str]:
        return self.thumbnails[row % len(self.thumbnails)], self.texts[row % len(self.texts)]

    def pairs(self, count: int) -> tuple[list[bytes], list[str]]:
        found = [self.pair(row) for row in range(count)]
        return [image for image, _ in found], [text for _, text in found]

    def part(self, count: int, number: int = 0) -> Thumbnails:
        """As it is read from the database."""
        images, texts = self.pairs(count)
        hashes = [self._hashes[row % len(self._hashes)] for row in range(count)]
        return Thumbnails(number, list(range(count)), texts, images, hashes)

    def recast(self, dtype: torch.dtype) -> None:
        """The model in another precision, from the weights in float32."""
        self.towers.to(dtype).load_state_dict(self.clip.state_dict())
        self.model.dtype = dtype


class FoldedTokens:
    """CLIP's tokens, folded into another model's vocabulary."""

    def __init__(self, context_length: int, vocabulary: int) -> None:
        self.context_length = context_length
        self._vocabulary = vocabulary
        self._plain = clip.SimpleTokenizer(context_length=context_length)

    def __call__(self, texts: list[str]) -> torch.Tensor:
        ids: torch.Tensor = self._plain(texts)
        return ids % self._vocabulary


def alt_text(rng: random.Random) -> str:
    """Median 10 words, a twentieth more than 30."""
    return " ".join(rng.choices(WORDS, k=max(1, round(rng.lognormvariate(2.3, 0.7)))))


def side(name: str, o: Options, thumbnails: list[bytes]) -> Side:
    """A model with random weights; that of a folder with its own."""
    # in float32, and not the short one of tensor cores
    torch.backends.cudnn.allow_tf32 = False
    folder = Path(name).is_dir()
    known = f"local-dir:{name}" if folder else name
    torch.manual_seed(1)
    made, _, preprocess = clip.create_model_and_transforms(known, device=o.device)
    configuration = {} if folder else clip.get_model_config(name)["text_cfg"]
    if "hf_tokenizer_name" in configuration:
        tokenize: Any = FoldedTokens(configuration["context_length"], configuration["vocab_size"])
    else:
        tokenize = clip.get_tokenizer(known)
    plain = copy.deepcopy(made).eval()
    rng = random.Random(name)
    texts = [alt_text(rng) for _ in range(2_000)]
    model = Model(
        name, None, made.eval(), preprocess, tokenize, o.device, o.dtype, compiled=o.compiled
    )
    return Side(name, model, made, plain, preprocess, tokenize, thumbnails, texts)


# ---- clip-retrieval ----------------------------------------------------------------------------


class Files(Dataset[dict[str, Any]]):
    """clip-retrieval's ImageDataset: n.jpg and n.txt in a folder; each text is tokenised alone."""

    def __init__(self, folder: Path, preprocess: Any, tokenize: Any) -> None:
        self._images = sorted(folder.glob("*.jpg"))
        self._preprocess = preprocess
        self._tokenize = tokenize

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> dict[str, Any]:
        file = self._images[row]
        text = file.with_suffix(".txt").read_text()
        return {
            "image_filename": str(file),
            "image_tensor": self._preprocess(Image.open(file)),
            "text_tokens": self._tokenize([text])[0],
            "text": text,
        }


@torch.no_grad()
def clip_retrieval(
    model: Any, preprocess: Any, tokenize: Any, folder: Path, batch: int, device: torch.device
) -> tuple[float, int]:
    """Seconds, and pairs, of ``clip-retrieval inference`` 2.45 over a folder of files (reader.py,
    mapper.py, writer.py, load_clip.py of its clip_inference), as it runs it: on a GPU in autocast
    to bf16, on a CPU in float32; embeddings in float16 as .npy, names and texts as Parquet."""
    import pandas as pd  # a second, and not there where only the scorer is measured

    cuda = device.type == "cuda"
    data = DataLoader(
        Files(folder, preprocess, tokenize), batch_size=batch, shuffle=False, num_workers=WORKERS,
        pin_memory=cuda, prefetch_factor=2, collate_fn=default_collate,
    )  # fmt: skip
    images, texts, names, captions = [], [], [], []
    begun = time.perf_counter()
    for item in data:
        with torch.autocast("cuda", torch.bfloat16) if cuda else nullcontext():
            image = model.encode_image(item["image_tensor"].to(device))
            text = model.encode_text(item["text_tokens"].to(device))
        image /= image.norm(dim=-1, keepdim=True)
        text /= text.norm(dim=-1, keepdim=True)
        images.append(image.cpu().to(torch.float16).numpy())
        texts.append(text.cpu().to(torch.float16).numpy())
        names.extend(item["image_filename"])
        captions.extend(item["text"])
    np.save(folder / "img_emb_0.npy", np.concatenate(images))
    np.save(folder / "text_emb_0.npy", np.concatenate(texts))
    pd.DataFrame({"image_path": names, "caption": captions}).to_parquet(
        folder / "metadata_0.parquet"
    )
    return time.perf_counter() - begun, len(names)


def write_files(folder: Path, images: list[bytes], texts: list[str]) -> None:
    folder.mkdir()
    for row, (image, text) in enumerate(zip(images, texts, strict=True)):
        (folder / f"{row:09}.jpg").write_bytes(image)
        (folder / f"{row:09}.txt").write_text(text)


# ---- the ceiling -------------------------------------------------------------------------------


def matmul_ceiling(
    device: torch.device, dtype: torch.dtype, seconds: float = 2.0, size: int | None = None
) -> float:
    """FLOP/s of the best of many products of two square matrices."""
    size = size or SIZES[device.type]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < seconds:
        took = timed(lambda: a @ b, device)
        best = min(best, took)
    return 2 * size**3 / best


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds until the device is done."""
    synchronise(device)
    begun = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - begun


def cpu_seconds() -> float:
    """Of this process, its threads, and its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Flops:
    """Counts what a model's towers execute: the shapes they are given, and from those the FLOPs,
    by torch's counter on a copy without data. A multiplication and an addition are two, in any
    precision."""

    def __init__(self, towers: Any, model: Any) -> None:
        self._meta = copy.deepcopy(towers).to("meta").requires_grad_(False)
        self._cuttable = text_tower.cuttable(towers)
        self._known: dict[tuple[str, tuple[int, ...]], int] = {}
        self.total = 0
        for name in ("_encode_image", "_encode_text"):
            setattr(model, name, self._counted(name, getattr(model, name)))

    def _counted(self, name: str, encode: Callable[[torch.Tensor], Any]) -> Callable[..., Any]:
        def counted(x: torch.Tensor) -> Any:
            key = name, tuple(x.shape)
            if key not in self._known:
                self._known[key] = self._count(name, x)
            self.total += self._known[key]
            return encode(x)

        return counted

    def _count(self, name: str, x: torch.Tensor) -> int:
        # the fused attention is one operator to the counter, which does not know it
        fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        # the copy stays in float32
        dtype = torch.float32 if x.is_floating_point() else x.dtype
        empty = torch.empty(x.shape, dtype=dtype, device="meta")
        try:
            with torch.inference_mode(), FlopCounterMode(display=False) as counter:
                if name == "_encode_image":
                    self._meta.encode_image(empty)
                elif self._cuttable:
                    text_tower.encode(self._meta, empty)
                else:
                    self._meta.encode_text(empty)
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)
        return int(counter.get_total_flops())
