"""What a version said of each evaluation image: a file of arrays beside its others, written once and never changed."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FILE = "evaluations.npz"  # among a version's files; not listed in version.json, since nobody needs it to predict
TOP = 5  # classes of which probabilities are kept, best first
_ID_BYTES = 16  # of an image's id, which is written as 32 hexadecimal digits
_KINDS = {"ids": "u1", "targets": "i4", "tag": "i4", "taw": "i4", "top": "i4", "scores": "f2"}


@dataclass(frozen=True, slots=True, eq=False)
class Evaluations:
    """A row for each evaluated image; classes are indices in the order of the version's logits."""

    ids: NDArray[np.uint8]  # [images, 16], the bytes that an image's id spells
    targets: NDArray[np.int32]  # [images], true classes
    tag: NDArray[np.int32]  # [images], predicted classes, task-agnostic
    taw: NDArray[np.int32]  # [images], predicted among the classes of the image's own task
    top: NDArray[np.int32]  # [images, k ≤ 5], most probable classes, best first
    scores: NDArray[np.float16]  # [images, k], their probabilities over all classes

    def __post_init__(self) -> None:
        """Raise ValueError for arrays that do not belong together."""
        images, kept = self.top.shape if self.top.ndim == 2 else (-1, -1)
        shapes = {
            "ids": (images, _ID_BYTES),
            "targets": (images,),
            "tag": (images,),
            "taw": (images,),
            "top": (images, kept),
            "scores": (images, kept),
        }
        for name, kind in _KINDS.items():
            array = getattr(self, name)
            if array.shape != shapes[name] or array.dtype != np.dtype(kind):
                raise ValueError(
                    f"{name}: expected {shapes[name]} of {np.dtype(kind)}, got {array.shape} of {array.dtype}"
                )

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.targets)

    def predicted(self, form: str) -> NDArray[np.int32]:
        """Predicted classes [images] in a form, tag or taw."""
        return self.taw if form == "taw" else self.tag

    def image_id(self, row: int) -> str:
        """The id of the image of a row."""
        return bytes(self.ids[row]).hex()

    def encoded(self) -> bytes:
        """The file; equal for equal arrays."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{name: getattr(self, name) for name in _KINDS})
        return buffer.getvalue()


def ids_of(images: Sequence[str]) -> NDArray[np.uint8]:
    """The array ``ids`` for images by their ids; raises ValueError for what is no id."""
    rows = np.frombuffer(bytes.fromhex("".join(images)), np.uint8)
    return rows.reshape(len(images), _ID_BYTES).copy()


def decoded(data: bytes) -> Evaluations:
    """What a file holds; raises ValueError for what `Evaluations.encoded` did not write."""
    try:
        with np.load(io.BytesIO(data)) as arrays:
            return Evaluations(**{name: arrays[name] for name in _KINDS})
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise ValueError(f"these are no evaluations: {error}") from error
