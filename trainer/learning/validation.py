"""Which training images are held back to see when learning has come to a halt."""

import hashlib
from collections import defaultdict
from collections.abc import Collection

import torch

from trainer.learning.data import ImageSet

_HASH_BYTES = 8
_HASHED = 256  # images at a time


def split_by_hash(images: ImageSet, *, share: float) -> tuple[ImageSet, ImageSet]:
    """The part to train on and the part to validate on, about ``share`` of all (0 … 1); each in the order they came.

    By a hash of the pixels, so that a side depends neither on the machine nor on the order nor, with the exceptions
    below, on the other images: an exemplar stays on its side from increment to increment. Equal pixels are on one side,
    whatever their classes. A class never loses all its images: those of its largest hash are trained on then. If no
    image is left to validate on, those of the smallest hash that no class depends on are; there are none where every
    class has a single distinct image.

    Evaluation images were taken out long before, by the hash of the stored file (`trainer.ingestion.splits`); this is
    another hash of other bytes, so that the share is one of what was left.
    """
    hashes = [_hash(image.numpy().tobytes()) for few in images.minibatches(_HASHED) for image in few.cpu()]
    distinct: dict[int, set[int]] = defaultdict(set)
    for target, code in zip(images.targets.tolist(), hashes, strict=True):
        distinct[target].add(code)
    held = _held_back(distinct.values(), share=share)
    validates = torch.tensor([code in held for code in hashes], dtype=torch.bool)
    training, validation = (images.select(side.nonzero().flatten()) for side in (~validates, validates))
    return training, validation


def _held_back(classes: Collection[set[int]], *, share: float) -> set[int]:
    """Of the hashes of each class's images those that validate."""
    everything = set().union(*classes)
    under = {code for code in everything if code < share * 2 ** (8 * _HASH_BYTES)}
    held = under - {max(members) for members in classes if members <= under}
    if held:
        return held
    alone = set().union(*(members for members in classes if len(members) == 1))
    return {min(everything - alone)} if everything - alone else set()


def _hash(pixels: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(pixels, digest_size=_HASH_BYTES, person=b"validation").digest(), "big")
