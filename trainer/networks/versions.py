"""A version on disk: weights.safetensors and version.json, all that prediction needs."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.networks.catalogue import build
from trainer.networks.heads import HEAD_KINDS
from trainer.networks.incremental import IncrementalNetwork
from trainer.networks.pictures import decode
from trainer.networks.transforms import EvaluationTransform, pixels

WEIGHTS = "weights.safetensors"
MANIFEST = "version.json"
FORMAT = 1  # of version.json


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A version ready to predict: its network in evaluation mode, and the transform of its input images."""

    network: IncrementalNetwork
    transform: EvaluationTransform
    tasks: tuple[tuple[str, ...], ...]  # labels by task, in the order of the logits
    manifest: Mapping[str, Any]  # the whole of version.json

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label, in the order of the logits."""
        return tuple(label for task in self.tasks for label in task)

    def probabilities(self, images: Sequence[bytes]) -> Tensor:
        """Probabilities [n, classes] of n image files; raises ImageRejected if one of them is not an image."""
        size, channels = self.transform.image_size, self.transform.channels
        decoded = [pixels(decode(data, channels=channels, image_size=size), size) for data in images]
        return self.probabilities_of(torch.stack(decoded) if decoded else torch.empty(0, channels, size, size).byte())

    @torch.inference_mode()
    def probabilities_of(self, pixels: Tensor) -> Tensor:
        """Softmax over all classes, float32 [n, classes] on the CPU, of uint8 pixels [n, channels, size, size]."""
        if len(pixels) == 0:
            return torch.empty(0, len(self.labels))
        device = next(self.network.parameters()).device
        logits: Tensor = self.network(self.transform.normalise(pixels.to(device)))
        return logits.float().softmax(dim=1).cpu()

    def top_k(self, probabilities: Tensor, k: int) -> list[list[tuple[str, float]]]:
        """The ``k`` most probable (label, probability) of each row of [n, classes], best first; all if fewer."""
        labels = self.labels
        best = probabilities.topk(min(k, len(labels)), dim=1)
        return [
            [(labels[index], probability) for index, probability in zip(indices, values, strict=True)]
            for indices, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


def write_version(
    folder: Path,
    network: IncrementalNetwork,
    *,
    transform: EvaluationTransform,
    manifest: Mapping[str, Any],
    files: Sequence[str] = (),
) -> None:
    """Write both files into an existing folder, version.json last.

    ``manifest`` holds at least ``tasks`` (labels by task) and must be JSON without NaN. ``files`` are the names of
    further files of the folder that belong to the version. The description of the network and of all files is added
    here. Raises ValueError if the labels do not match the network's heads.
    """
    tasks = [list(task) for task in manifest["tasks"]]
    if tuple(map(len, tasks)) != network.task_sizes:
        raise ValueError(f"the heads have {network.task_sizes} classes, the labels are {tasks}")
    weights = folder / WEIGHTS
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}, weights)
    record = {
        **manifest,
        "format": FORMAT,
        "network": network.name,
        "image_size": network.image_size,
        "channels": network.channels,
        "head": network.head_kind,
        "tasks": tasks,
        "transform": transform.to_json(),
        "files": {name: _described(folder / name) for name in (WEIGHTS, *files)},
    }
    text = json.dumps(record, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def load_version(folder: Path, *, device: torch.device | str = "cpu") -> LoadedVersion:
    """The version in a folder, all its files checked; raises ValueError for a damaged one or an unknown format."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if manifest.get("format") != FORMAT or manifest.get("head") not in HEAD_KINDS:
        raise ValueError(
            f"{MANIFEST} has format {manifest.get('format')!r} and head {manifest.get('head')!r}; this release reads "
            f"format {FORMAT} with head {' or '.join(map(repr, HEAD_KINDS))}"
        )
    for name, expected in manifest["files"].items():
        if (found := _sha256(folder / name)) != expected["sha256"]:
            raise ValueError(f"{name} is damaged: SHA-256 {found}, expected {expected['sha256']}")
    tasks = tuple(tuple(task) for task in manifest["tasks"])
    network = build(
        manifest["network"],
        channels=manifest["channels"],
        image_size=manifest["image_size"],
        task_sizes=tuple(map(len, tasks)),
        head_kind=manifest["head"],
    )
    network.load_state_dict(load_file(folder / WEIGHTS))  # copied: the file may be deleted afterwards
    transform = EvaluationTransform.from_json(manifest["transform"])
    return LoadedVersion(network=network.to(device).eval(), transform=transform, tasks=tasks, manifest=manifest)


def _described(path: Path) -> dict[str, Any]:
    return {"sha256": _sha256(path), "bytes": path.stat().st_size}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
