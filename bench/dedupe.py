"""Dedupe: recall and precision by transform, and rows a second, over images of packages.

    python bench/dedupe.py [--quick] [--json] [--images 5000] [--rows 10000000] [--write]

Images are real: out of Debian's packages (drawings, photographs, textures: bench/dedupe_images.py),
downloaded once into build/. Each is transformed in eleven ways, encoded again, and decoded and
hashed as a downloader does; embeddings are of the demo's small model, since CLIP's weights do not
come with this: its cosines are no CLIP's, and a threshold for CLIP is to be measured with CLIP.

transforms  share of transformed images within 0 to 4, and 10 bits of their image (r0 …); clear_r3:
            neither hash of low entropy; confirmed_r3: and the cosine at or above --cosine
thresholds  of all pairs within 3 bits, whatever images they are of, by the cosine asked: pairs that
            are neither planted nor the same to the eye (root mean square below 12 of 255) are false
search      the exact search within 3 bits over --rows random hashes and the planted ones
method      find_duplicates: the share of transformed images that go, and for the right one
clusters    SemDeDup: of all pairs at or above a cosine those in one cluster
texts       descriptions of Debian's packages with six changes, MinHash at Jaccard 0.8; datasketch's
            LSH beside
imagededup  its own search over 3,000 hashes of ours (it compares all pairs: 20,000 take 300 s);
            needs imagededup with what it needs, scikit-learn among it

--write     puts recall and precision into ops/dedupe/measured.json, which manifests quote
"""

import json
import os
import platform
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).parent))

from cpu import cpu_name
from dedupe_images import PACKAGES, files, made
from dedupe_sides import (
    by_transform,
    clusters,
    distractors,
    imagededup_search,
    planted,
    texts,
    thresholds,
    whole,
)

from pairmill.ops.dedupe.spec import Dedupe
from pairmill.ops.demo.model import PATH
from pairmill.workers.score.model import load

MEASURED = Path(__file__).parents[1] / "ops" / "dedupe" / "measured.json"
STEPS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
# what a copy of an image usually went through; a crop, border or caption of it is further than 3
# bits in most cases, and a mirrored image is another
COPIES = ("resize_75", "resize_50", "jpeg_90", "jpeg_70", "jpeg_40", "grey", "watermark")


def measure(images: int, rows: int, sentences: int, cosine: float) -> dict[str, Any]:
    def note(what: str) -> None:
        print(f"{what} …", file=sys.stderr, flush=True)

    note(f"{images} images, each in 12 ways")
    p = planted(made(files(), images), load(str(PATH), threads=1))
    note("cosines")
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {cpu_name()}, {len(os.sched_getaffinity(0))} cores",
        "versions": {name: version(name) for name in ("duckdb", "numpy", "rensa", "pillow")},
        "packages": PACKAGES,
        "images": len(np.unique(p.first)),
        "low_entropy": round(float(p.low.mean()), 4),
        "transforms": by_transform(p, cosine),
        "thresholds": thresholds(p, 3, STEPS),
    }
    note(f"{rows:,} random hashes")
    result["search"] = distractors(rows, p.dhash, p.first, len(os.sched_getaffinity(0)))
    note("the method")
    result["method"] = {
        "dhash": whole(p, Dedupe(exact=[], dhash_radius=3)),
        "dhash_confirmed": whole(p, Dedupe(exact=[], dhash_radius=3, min_cosine=cosine)),
        "semantic": whole(p, Dedupe(exact=[], semantic_cosine=0.98)),
    }
    note("clusters")
    result["clusters"] = clusters(p, 0.98)
    note("texts")
    result["texts"] = texts(sentences, 0.8)
    result["imagededup"] = imagededup_search(np.unique(p.dhash)[:3_000], 3)
    return result


def for_manifests(result: dict[str, Any], cosine: float) -> dict[str, Any]:
    """Recall and precision by method."""
    on = (
        f"{result['images']} images of Debian's {', '.join(result['packages'])}, each in"
        f" {len(result['transforms'])} transforms; the demo's model; {date.today().isoformat()}"
    )
    confirmed = result["method"]["dhash_confirmed"]
    meaning = result["method"]["semantic"]
    words = result["texts"]
    return {
        "dhash": {
            "recall": _mean(confirmed["recall"], COPIES),
            "precision": confirmed["precision"],
            "recall_by_transform": confirmed["recall"],
            "without_cosine": {
                "recall": _mean(result["method"]["dhash"]["recall"], COPIES),
                "precision": result["method"]["dhash"]["precision"],
            },
            "recall_within_radius": result["search"]["dhash_recall"],
            "radius": 3,
            "min_cosine": cosine,
            "recall_of": list(COPIES),
            "on": on,
        },
        "near_text": {
            "recall": words["recall"],
            "precision": words["precision"],
            "min_jaccard": words["threshold"],
            "recall_by_change": {name: v["recall"] for name, v in words["by_change"].items()},
            "on": f"{words['texts']} descriptions of Debian's packages, changed in six ways",
        },
        "semantic": {
            "recall": result["clusters"]["recall"],
            "precision": meaning["precision"],
            "cosine": result["clusters"]["cosine"],
            "recall_of": "pairs at or above the cosine, in one cluster",
            "on": on,
        },
    }


def _mean(values: dict[str, float], names: tuple[str, ...]) -> float:
    return round(sum(values[name] for name in names) / len(names), 4)


def main(
    images: Annotated[int, typer.Option(help="Images out of packages.")] = 5_000,
    rows: Annotated[int, typer.Option(help="Random hashes.")] = 10_000_000,
    sentences: Annotated[int, typer.Option(help="Texts before they are changed.")] = 20_000,
    cosine: Annotated[float, typer.Option(help="Asked of near hashes.")] = 0.8,
    quick: Annotated[bool, typer.Option("--quick", help="Within two minutes.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Into measured.json.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON.")] = False,
) -> None:
    if quick:
        images, rows, sentences = 120, 1_000_000, 1_000
    result = measure(images, rows, sentences, cosine)
    result |= {key: result["search"][key] for key in ("dhash_rows_per_s", "dhash_recall")}
    if write:
        MEASURED.write_text(json.dumps(for_manifests(result, cosine), indent=1) + "\n", "utf-8")
    if as_json:
        print(json.dumps(result, indent=1))
        return
    for name in ("transforms", "thresholds"):
        print(f"\n{name}")
        print("  ".join(result[name][0]))
        for row in result[name]:
            print("  ".join(str(value) for value in row.values()))
    for name in ("search", "method", "clusters", "texts", "imagededup"):
        print(f"\n{name}: {json.dumps(result[name])}")


if __name__ == "__main__":
    typer.run(main)
