"""The manifest of a version on disk, version.json: what the version is, and what its files must contain. Torch-free."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.networks.limits import HEAD_KINDS, HeadKind

WEIGHTS = "weights.safetensors"
MANIFEST = "version.json"
EXECUTABLE = "network.onnx"
INT8 = "network.int8.onnx"
PROGRAM = "network.pt2"
FORMAT = 1  # of version.json

# Names in the graph of network.onnx, whose contract is docs/versions.md
PIXELS = "pixels"  # input: uint8 [images, channels, size, size], as decoded
VALUES = "values"  # input that may be left out: float32 [more images, channels, size, size] in 0 … 1
PROBABILITIES = "probabilities"
OUTPUTS = ("logits", "features", PROBABILITIES)  # float32 [all images, …]; those of pixels come first


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a version's folder holds."""

    network: str  # its name in the catalogue
    channels: int  # 1 or 3
    image_size: int  # height and width, in pixels
    head: HeadKind
    tasks: tuple[tuple[str, ...], ...]  # labels by task, in the order of the logits
    transform: Mapping[str, Any]  # the record of an `EvaluationTransform`
    files: Mapping[str, str]  # SHA-256 in hexadecimal digits, by the names of the other files of the folder
    record: Mapping[str, Any]  # the whole of version.json
    rows: tuple[tuple[int, ...], ...] | None = None  # of each class in its head, by task; None: one each

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label, in the order of the logits."""
        return tuple(label for task in self.tasks for label in task)


def read_manifest(folder: Path, *, known: Mapping[str, str] | None = None) -> Manifest:
    """The manifest in a version's folder; the files that it lists are checked against their digests.

    With ``known``, the digests of files that were computed already, no file is read, and the others are not checked.
    Raises ValueError for a damaged file or an unknown format, KeyError for a missing field, and OSError for a missing
    file.
    """
    record: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if record.get("format") != FORMAT or record.get("head") not in HEAD_KINDS:
        raise ValueError(
            f"{MANIFEST} has format {record.get('format')!r} and head {record.get('head')!r}; this release reads "
            f"format {FORMAT} with head {' or '.join(map(repr, HEAD_KINDS))}"
        )
    files = {name: file["sha256"] for name, file in record["files"].items()}
    for name, expected in files.items():
        if known is not None and name not in known:
            continue
        if (found := _sha256(folder / name) if known is None else known[name]) != expected:
            raise ValueError(f"{name} is damaged: SHA-256 {found}, expected {expected}")
    return Manifest(
        network=record["network"],
        channels=record["channels"],
        image_size=record["image_size"],
        head=record["head"],
        tasks=tuple(tuple(task) for task in record["tasks"]),
        rows=tuple(tuple(task) for task in record["rows"]) if "rows" in record else None,
        transform=record["transform"],
        files=files,
        record=record,
    )


def write_manifest(folder: Path, record: Mapping[str, Any], *, files: Iterable[str]) -> None:
    """Write version.json: the record, the format, and the digests of ``files``, names of files in the folder.

    The record must be JSON without NaN.
    """
    described = {name: {"sha256": _sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in files}
    text = json.dumps({**record, "files": described}, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
