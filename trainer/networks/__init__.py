"""Networks, the transforms of their input images, and versions on disk: all that serving needs.

The package needs only torch, torchvision, Pillow and safetensors. Each of them is imported with the first name that
needs it. torchvision is needed for its own networks only. `pictures`, `limits` and `manifest` need no torch: decoding
processes start fast, and the API checks networks and reads versions without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.networks.catalogue import build, names
    from trainer.networks.folding import folded
    from trainer.networks.incremental import IncrementalNetwork, Observed
    from trainer.networks.initial_weights import load_initial_weights
    from trainer.networks.limits import check
    from trainer.networks.manifest import Manifest, read_manifest
    from trainer.networks.pictures import ImageRejected, decode
    from trainer.networks.transforms import EvaluationTransform, pixels
    from trainer.networks.versions import LoadedVersion, load_version, write_version

__all__ = [
    "EvaluationTransform",
    "ImageRejected",
    "IncrementalNetwork",
    "LoadedVersion",
    "Manifest",
    "Observed",
    "build",
    "check",
    "decode",
    "folded",
    "load_initial_weights",
    "load_version",
    "names",
    "pixels",
    "read_manifest",
    "write_version",
]
_MODULES = {
    "catalogue": ("build", "names"),
    "folding": ("folded",),
    "incremental": ("IncrementalNetwork", "Observed"),
    "initial_weights": ("load_initial_weights",),
    "limits": ("check",),
    "manifest": ("Manifest", "read_manifest"),
    "pictures": ("ImageRejected", "decode"),
    "transforms": ("EvaluationTransform", "pixels"),
    "versions": ("LoadedVersion", "load_version", "write_version"),
}
_HOMES = {name: module for module, contents in _MODULES.items() for name in contents}


def __getattr__(name: str) -> Any:
    """Import a name's module when the name is asked for first (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
