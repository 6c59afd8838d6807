"""The digest that identifies a model's weights in any file format."""

import hashlib

import torch


def weights_digest(model: torch.nn.Module) -> str:
    """sha256, hexadecimal, over the names, shapes and float32 values of the model's tensors in
    order of name: the same for one checkpoint in any file format."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
