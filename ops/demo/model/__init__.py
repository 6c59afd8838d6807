"""The demo's own small CLIP model, for machines that cannot download weights."""

from pathlib import Path

PATH = Path(__file__).parent.resolve()  # a folder as open_clip's local-dir: loads it
