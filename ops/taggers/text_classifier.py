"""Classifiers of texts that an admin brings: probabilities by label, of toxicity and the like.

A folder is one of two: a model of Hugging Face's `…ForSequenceClassification` (config.json, weights
in safetensors, tokenizer), or a checkpoint of detoxify's (https://github.com/unitaryai/detoxify,
src/: config and state_dict in one .ckpt) beside the config.json and tokenizer of its base model.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pairmill.workers.errors import Refused
from pairmill.workers.score import torchvision_import as _before_transformers  # noqa: F401
from pairmill.workers.score.state_dict import load_plain

MAX_TOKENS = 512
# detoxify's names of the labels of its first model, as its others have them
DETOXIFY_LABELS = {
    "toxic": "toxicity", "identity_hate": "identity_attack", "severe_toxic": "severe_toxicity",
}  # fmt: skip


class TextClassifier:
    """labels: names, in order. digest: sha256 of the weights, hexadecimal."""

    def __init__(self, labels: list[str], digest: str, model: Any, tokenizer: Any) -> None:
        self.labels, self.digest = labels, digest
        self._model, self._tokenizer = model.eval(), tokenizer

    def probabilities(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32[texts, labels], 0 to 1, each label by itself (a sigmoid, as detoxify's)."""
        # texts of about one length are padded least
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        inputs = self._tokenizer(
            [texts[i] for i in order],
            return_tensors="pt", truncation=True, padding=True, max_length=self._max_tokens(),
        )  # fmt: skip
        with torch.inference_mode():
            logits = self._model(**inputs).logits
        found = np.empty((len(texts), len(self.labels)), np.float32)
        # detoxify's unbiased model has further outputs, of identities that its classes do not name
        found[order] = torch.sigmoid(logits[:, : len(self.labels)].float()).cpu().numpy()
        return found

    def _max_tokens(self) -> int:
        own = getattr(self._model.config, "max_position_embeddings", MAX_TOKENS)
        return int(min(MAX_TOKENS, own, self._tokenizer.model_max_length))


def load(folder: Path) -> TextClassifier:
    """Raises Refused, with a sentence, for a folder that holds no classifier."""
    transformers = _transformers()
    if not (folder / "config.json").is_file():
        raise Refused(f"{folder} is no text classifier: it has no config.json")
    checkpoints = sorted(folder.glob("*.ckpt"))
    try:
        if checkpoints:
            labels, weights, model = _detoxify(transformers, folder, checkpoints[0])
        else:
            labels, weights, model = _hugging_face(transformers, folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Refused:
        raise
    except Exception as error:  # transformers raises nearly anything
        said = " ".join(str(error).split())[:200]
        raise Refused(f"cannot load the text classifier {folder}: {said}") from None
    digest = hashlib.sha256()
    for path in weights:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return TextClassifier(labels, digest.hexdigest(), model, tokenizer)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise Refused(
            "texts are classified by Hugging Face's transformers: pip install"
            " 'pairmill[score,multilingual]'"
        ) from None
    logging: Any = transformers.utils.logging
    logging.disable_progress_bar()  # of the weights' names
    return transformers


def _hugging_face(transformers: Any, folder: Path) -> tuple[list[str], list[Path], Any]:
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise Refused(f"{folder} has neither *.safetensors nor a .ckpt of detoxify's")
    model, told = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, output_loading_info=True
    )
    if missing := sorted(told["missing_keys"]):
        raise Refused(f"the weights in {folder} lack {missing[0]}: it would be random")
    names = model.config.id2label
    return [str(names[i]) for i in range(model.config.num_labels)], weights, model


def _detoxify(transformers: Any, folder: Path, path: Path) -> tuple[list[str], list[Path], Any]:
    found = load_plain(path)
    try:
        arch = found["config"]["arch"]["args"]
        classes = found["config"]["dataset"]["args"]["classes"]
        name, state = str(arch["model_name"]), found["state_dict"]
    except (KeyError, TypeError):
        raise Refused(
            f"{path} is no checkpoint of detoxify's: it lacks config or state_dict"
        ) from None
    if not name.endswith("ForSequenceClassification") or not hasattr(transformers, name):
        raise Refused(
            f"{path} wants the model {name[:60]!r}, which is no classifier of transformers"
        )
    config = transformers.AutoConfig.from_pretrained(
        folder, local_files_only=True, num_labels=int(arch["num_classes"])
    )
    model = getattr(transformers, name)(config)
    # position_ids: a buffer that transformers kept in state dicts once
    state = {key: value for key, value in state.items() if not key.endswith("position_ids")}
    told = model.load_state_dict(state, strict=False)
    if wrong := [*told.missing_keys, *told.unexpected_keys]:
        raise Refused(f"the weights in {path} do not fit {name}: {wrong[0]}")
    if len(classes) > config.num_labels:
        raise Refused(f"{path} names {len(classes)} classes and has {config.num_labels}")
    return [DETOXIFY_LABELS.get(each, each) for each in classes], [path], model
