"""A version on disk: weights.safetensors and version.json, all that prediction needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.networks.catalogue import build
from trainer.networks.incremental import IncrementalNetwork
from trainer.networks.manifest import FORMAT, WEIGHTS, read_manifest, write_manifest
from trainer.networks.pictures import decode
from trainer.networks.transforms import EvaluationTransform, pixels


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
    """Write the weights and the manifest into an existing folder, the manifest last.

    ``manifest`` holds at least ``tasks`` (labels by task) and must be JSON without NaN. The description of the network
    and of the files is added here. ``files`` are names of further files of the version that are in the folder already.
    Raises ValueError if the labels do not match the network's heads.
    """
    tasks = [list(task) for task in manifest["tasks"]]
    if tuple(map(len, tasks)) != network.task_sizes:
        raise ValueError(f"the heads have {network.task_sizes} classes, the labels are {tasks}")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    record = {
        **manifest,
        "format": FORMAT,
        "network": network.name,
        "image_size": network.image_size,
        "channels": network.channels,
        "head": network.head_kind,
        "tasks": tasks,
        "transform": transform.to_json(),
        **_rows_of(network),
    }
    write_manifest(folder, record, files=(WEIGHTS, *files))


def _rows_of(network: IncrementalNetwork) -> dict[str, Any]:
    """What version.json says of rows; nothing where each class has one, so that earlier releases read it."""
    return {"rows": network.rows} if any(count > 1 for task in network.rows for count in task) else {}


def load_version(folder: Path, *, device: torch.device | str = "cpu") -> LoadedVersion:
    """The version in a folder, checked; raises as `read_manifest` does, and ValueError as `build` does."""
    manifest = read_manifest(folder)
    network = build(
        manifest.network,
        channels=manifest.channels,
        image_size=manifest.image_size,
        task_sizes=tuple(map(len, manifest.tasks)),
        rows=manifest.rows,
        head_kind=manifest.head,
    )
    network.load_state_dict(load_file(folder / WEIGHTS))  # copied: the file may be deleted afterwards
    transform = EvaluationTransform.from_json(manifest.transform)
    network = network.to(device).eval()
    return LoadedVersion(network=network, transform=transform, tasks=manifest.tasks, manifest=manifest.record)
