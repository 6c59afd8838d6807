"""The user's names for a model, device and precision into open_clip's and torch's; unknown ones
are refused."""

import difflib
import importlib
import json
from pathlib import Path
from pickle import UnpicklingError

import torch

from pairmill.workers.errors import Refused
from pairmill.workers.score import torchvision_import as _before_open_clip  # noqa: F401

# isort: split
import open_clip

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
HUGGING_FACE = ("hf_tokenizer_name", "hf_model_name")  # keys of a configuration's text_cfg


def known_name(name: str, pretrained: str | None) -> str:
    """open_clip's name of a model of its own, of a configuration's file or of a folder."""
    if Path(name).is_dir():
        return _folder(name, pretrained)
    if name.endswith(".json"):
        return _configuration(Path(name), pretrained)
    return _named(name, pretrained)


def device_of(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise Refused(f"unknown device {wanted!r}: it is cpu, cuda, cuda:N or auto") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise Refused(f"there is no device {wanted}: torch sees {torch.cuda.device_count()} GPUs")
    return device


def dtype_of(precision: str, device: torch.device) -> torch.dtype:
    """precision: fp32, bf16, fp16, or auto: bf16 on a CUDA device that computes in it, fp32
    elsewhere."""
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and _computes_in_bf16(device) else "fp32"
    if precision not in PRECISIONS:
        raise Refused(f"unknown precision {precision!r}: it is {', '.join(PRECISIONS)} or auto")
    return PRECISIONS[precision]


def _computes_in_bf16(device: torch.device) -> bool:
    """From Ampere on, compute capability 8.0; older ones (T4, V100) only emulate it, slowly."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


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


def check_hugging_face(name: str, known: str) -> None:
    """Refuse a model whose tokenizer or text tower is Hugging Face's where that cannot be had.

    known: open_clip's name of it, as ``known_name`` gives it.
    """
    configuration = open_clip.get_model_config(known) or {}
    text = configuration.get("text_cfg")
    if not isinstance(text, dict) or not any(text.get(key) for key in HUGGING_FACE):
        return
    if (text.get("tokenizer_kwargs") or {}).get("trust_remote_code"):
        raise Refused(f"the tokenizer of {name} would run code of its own, and none is run")
    try:
        importlib.import_module("transformers")
    except ImportError:
        raise Refused(
            f"the texts of {name} are read by Hugging Face's transformers, which is not"
            " installed: pip install 'pairmill[multilingual]'"
        ) from None


def reason(name: str, pretrained: str | None, error: Exception) -> str:
    said = " ".join(str(error).split())[:300]
    if said.startswith("Failed to download weights"):
        return (
            f"cannot download the weights {pretrained} of {name}: connect this machine to the"
            f" network, or give --pretrained the path of a checkpoint ({said})"
        )
    if isinstance(error, OSError) and any(part in said for part in ("connect to", "local folder")):
        return (
            f"cannot get the tokenizer or text model that the configuration of {name} names:"
            " connect this machine to the network once, or name folders that hold them"
            f" ({' and '.join(HUGGING_FACE)}; {said})"
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
