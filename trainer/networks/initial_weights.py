"""Initial weights of a network from a file, instead of random ones."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from trainer.networks.incremental import IncrementalNetwork

AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")  # classifiers of Inception and GoogLeNet that are left out here
DENSENET_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")  # as torchvision's files of 2017 write it


def load_initial_weights(network: IncrementalNetwork, path: Path) -> None:
    """Fill the backbone from a .safetensors file, or a .pth/.pt file of tensors only; heads keep their values.

    Reads torchvision's weight files and the ``weights.safetensors`` of a version. Raises ValueError, with the names of
    the tensors that are missing, unexpected or of another shape; the network is unchanged then.
    """
    tensors = _backbone_tensors(_read(path), classifier=network.classifier)
    own = network.backbone.state_dict()
    missing = [name for name in own if name not in tensors and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in tensors if name not in own]
    mismatched = [
        f"{name} is {list(tensor.shape)}, expected {list(own[name].shape)}"
        for name, tensor in tensors.items()
        if name in own and tensor.shape != own[name].shape
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": mismatched}
    if any(faults.values()):
        described = "; ".join(f"{kind}: {_some(found)}" for kind, found in faults.items() if found)
        raise ValueError(
            f"{path.name} does not fit the network {network.name!r} with {network.channels} channels – {described}"
        )
    network.backbone.load_state_dict(tensors, strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    """Tensors by name; raises ValueError for a file that holds anything but tensors."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # code in the file raises an error of pickle, which is not imported here
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path.name} is no safetensors file and no .pth of tensors only: {reason}") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]  # a training checkpoint
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise ValueError(f"{path.name} holds no mapping of names to tensors")
    return {str(name): tensor for name, tensor in content.items()}


def _backbone_tensors(tensors: Mapping[str, Tensor], *, classifier: str) -> dict[str, Tensor]:
    """The tensors by the backbone's own names, without those of classifiers."""
    plain = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}  # from DataParallel
    if any(name.startswith("backbone.") for name in plain):  # a version of this service: heads are dropped
        return {
            name.removeprefix("backbone."): tensor for name, tensor in plain.items() if name.startswith("backbone.")
        }
    dropped = (f"{classifier}.", *AUXILIARY)
    return {DENSENET_NAME.sub(r"\1\2", name): tensor for name, tensor in plain.items() if not name.startswith(dropped)}


def _some(names: list[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
