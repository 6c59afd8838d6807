"""What TensorFlow says about LAION's NSFW detectors, as a reference for the reader that needs none.

    python -m venv tf && tf/bin/pip install tensorflow-cpu==2.21.0
    tf/bin/python tests/support/nsfw_reference.py nsfw-vit-*.zip > tests/support/nsfw_reference.json

The saved models' own function, serving_default, is run on ``vectors``: of unit length before they
are rounded to float16; every second one has numbers in the categorical columns near those that the
vocabulary begins with, since random ones are hardly ever in it.
"""

import json
import math
import os
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

ROWS, SEED = 200, 20261125
# the columns that AutoKeras took for categories, and the most frequent number in each
COLUMNS = {
    512: {92: -0.5625, 133: 0.08136, 312: 0.080994},
    768: {180: 0.125488, 316: -0.062683, 413: -0.375, 440: 0.054688, 644: 0.375},
}


def vectors(dims: int) -> np.ndarray:
    """float16[ROWS, dims], the same on every machine: integers, and IEEE 754's exact operations."""
    random = np.random.RandomState(SEED)
    whole = random.randint(-1000, 1001, (ROWS, dims))
    lengths = [math.sqrt(sum(int(x) ** 2 for x in row)) for row in whole]
    found = whole / np.array(lengths)[:, None]
    for column, number in COLUMNS[dims].items():
        near = random.randint(750, 1251, ROWS) / 1000
        found[::2, column] = number * near[::2]
    return found.astype(np.float16)


def reference(path: Path) -> tuple[int, list[float]]:
    import tensorflow

    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        (file,) = Path(folder).rglob("saved_model.pb")
        loaded = tensorflow.saved_model.load(str(file.parent))
        run = loaded.signatures["serving_default"]
        (given,) = run.structured_input_signature[1].values()
        (name,) = run.structured_outputs
        dims = int(given.shape[1])
        out = run(tensorflow.constant(vectors(dims).astype(np.float64)))[name].numpy()
    return dims, [float(np.format_float_positional(x, unique=True)) for x in out[:, 0]]


def main() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    found: dict[str, object] = {"tensorflow": tensorflow.__version__}
    for path in sys.argv[1:]:
        dims, values = reference(Path(path))
        found[str(dims)] = values
    print(json.dumps(found))


if __name__ == "__main__":
    main()
