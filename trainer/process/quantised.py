"""The file ``network.int8.onnx`` of a new version, if it is shown to be about as accurate as its network.onnx."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.export import compare, headline, quantise
from trainer.learning.data import ImageSet, positions_by_class
from trainer.networks.manifest import EXECUTABLE, INT8
from trainer.process.executable import spread

CALIBRATED = 256  # training images at most
COMPARED = 2000  # evaluation images at most
_MINIBATCH = 16  # images


def add_int8(folder: Path, learned: ImageSet, measured: ImageSet) -> dict[str, Any]:
    """Write it into a version's folder, beside network.onnx; the record of it for version.json.

    ``learned`` are training images, by which it is calibrated, and ``measured`` evaluation images, on which it is
    compared. The record says whether the file is there (``offered``), and the ``reason`` if it is not. No failure is
    raised: a version does without it.
    """
    shown = learned.select(balanced(learned.targets))
    compared = measured.select(torch.tensor(spread(len(measured), most=COMPARED), dtype=torch.int64))
    content, threads = (folder / EXECUTABLE).read_bytes(), torch.get_num_threads()
    try:
        made = quantise(content, shown.minibatches(_MINIBATCH), scratch=folder.parent, threads=threads)
        pairs = zip(compared.minibatches(_MINIBATCH), torch.split(compared.targets, _MINIBATCH), strict=True)
        found = compare(content, made, pairs, threads=threads)
    except Exception as error:  # noqa: BLE001 - the quantiser raises almost anything
        return {"offered": False, "reason": f"failed: {headline(error)}"}
    if found.reason is None:
        (folder / INT8).write_bytes(made)
    return found.to_json() | {"calibration_images": len(shown)}


def balanced(targets: Tensor) -> Tensor:
    """Positions (int64) of at most `CALIBRATED` images, about equally many of each class; ``targets`` int64 [images].

    They are spread evenly over the images of a class, and over the classes if there are more than `CALIBRATED`.
    """
    by_class = positions_by_class(targets)
    each = -(-CALIBRATED // max(len(by_class), 1))
    chosen = [positions[_even(len(positions), each)] for positions in by_class.values()]
    together = torch.cat(chosen) if chosen else torch.empty(0, dtype=torch.int64)
    return together[_even(len(together), CALIBRATED)]


def _even(count: int, most: int) -> Tensor:
    return torch.tensor(sorted(spread(count, most=most)), dtype=torch.int64)
