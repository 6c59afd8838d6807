"""open_clip without transformers, which only text towers of Hugging Face's need, and which takes
seconds to import. Import this first."""

import sys

sys.modules["transformers"] = None  # type: ignore[assignment]

from pairmill.workers.score import text_tower as _text_tower  # noqa: E402, F401

del sys.modules["transformers"]
