"""Validation images: training images that are held back to see when training no longer improves."""

import hashlib
from collections import defaultdict
from collections.abc import Collection

import torch

from trainer.learning.data import ImageSet

_HASH_BYTES = 8
_HASHED = 256  # images at a time


def split_by_hash(images: ImageSet, *, share: float) -> tuple[ImageSet, ImageSet]:
    """The images to train on, and those to validate on, about ``share`` of all (0 … 1); both in the given order.

    The split is by a hash of the pixels. So it depends neither on the machine nor on the order. With two exceptions it
    does not depend on the other images: an exemplar stays on its side from increment to increment. Equal pixels
    are on the same side, whatever their classes.

    The exceptions: If all images of a class were held back, those with its largest hash are trained on. If no image
    were left to validate on, the images with the smallest hash are held back, of those that are not the only ones of a
    class. There are no validation images if every class has a single distinct image.

    Evaluation images were removed before, by the hash of the stored file (`trainer.ingestion.splits`). This is another
    hash, of other bytes, so that ``share`` is a share of the remaining images.
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
    """The hashes of the images to validate on; ``classes`` are the hashes of each class's images."""
    everything = set().union(*classes)
    under = {code for code in everything if code < share * 2 ** (8 * _HASH_BYTES)}
    held = under - {max(members) for members in classes if members <= under}
    if held:
        return held
    alone = set().union(*(members for members in classes if len(members) == 1))
    return {min(everything - alone)} if everything - alone else set()


def _hash(pixels: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(pixels, digest_size=_HASH_BYTES, person=b"validation").digest(), "big")
