"""Networks, how images are brought before them, and versions on disk; all that serving needs.

Imports nothing but torch, torchvision (only when one of its networks is asked for), Pillow and safetensors.
"""

from trainer.networks.catalogue import build, check, names
from trainer.networks.folding import folded
from trainer.networks.incremental import IncrementalNetwork, Observed
from trainer.networks.initial_weights import load_initial_weights
from trainer.networks.transforms import EvaluationTransform, pixels
from trainer.networks.versions import LoadedVersion, load_version, write_version
from trainer.pictures import ImageRejected, decode

__all__ = [
    "EvaluationTransform",
    "ImageRejected",
    "IncrementalNetwork",
    "LoadedVersion",
    "Observed",
    "build",
    "check",
    "decode",
    "folded",
    "load_initial_weights",
    "load_version",
    "names",
    "pixels",
    "write_version",
]
