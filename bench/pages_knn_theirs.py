"""clip-retrieval's own service, for bench/pages_knn.py, in an environment of its own.

    python bench/pages_knn_theirs.py FOLDER PORT parquet|arrow

FOLDER has indices.json as ``clip_back`` reads it. It runs that ``clip_back``, with two of its
imports replaced, since nothing of both takes part in a query by embedding: the package's
``__init__``, which imports its inference, and ``all_clip``, which downloads a model.
"""

import sys
import types
from importlib.util import find_spec
from pathlib import Path


def main(folder: Path, port: int, metadata: str) -> None:
    found = find_spec("clip_retrieval")
    if found is None or not found.submodule_search_locations:
        sys.exit("clip-retrieval is not installed here")
    package = types.ModuleType("clip_retrieval")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["clip_retrieval"] = package
    models = types.ModuleType("all_clip")
    models.load_clip = lambda *given, **named: (None, None, None)  # type: ignore[attr-defined]
    sys.modules["all_clip"] = models
    from clip_retrieval.clip_back import clip_back

    clip_back(
        indices_paths=str(folder / "indices.json"),
        port=port,
        use_arrow=metadata == "arrow",
        use_jit=False,
        enable_mclip_option=False,
        provide_aesthetic_embeddings=False,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
