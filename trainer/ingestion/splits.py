"""Which images of a batch are used, and in which split: decided by the findings alone, without storage or archive."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from storage.archives.bad_share import check_share
from storage.domain import AS_HELD, Image, Names, Pack, Reject, Split
from storage.errors import BatchInvalid

TEST_SHARE = 0.2  # share of the content hash's range (DESIGN, Evaluation images)
_HASH_RANGE = 1 << 256


@dataclass(frozen=True)
class Ingested:
    """The result of ingesting a batch."""

    images: tuple[Image, ...]
    rejects: tuple[Reject, ...]
    digest: str
    packs: tuple[Pack, ...] = ()  # written for the images


def settle(
    stored: Sequence[Image],
    rejects: Sequence[Reject],
    *,
    labels: Collection[str],
    max_bad_share: float,
    names: Names = AS_HELD,
) -> Ingested:
    """Drop duplicates, give each image its split, and compute the digest of the batch.

    ``labels`` are the classes that the batch had at first. Raises `BatchInvalid`, which calls classes by their
    ``names``, if one of them is left with fewer than two images or without a training image, and if the share of
    rejects is above ``max_bad_share``.
    """
    check_share(rejects, images=len(stored), limit=max_bad_share)
    unique, repeated = _without_repetition(stored)
    images = _split(unique)
    by_label = _by_label(images)
    if few := sorted(names.name(label) for label in labels if len(by_label.get(label, ())) < 2):
        raise BatchInvalid(
            f"A class needs at least two distinct, readable images; {', '.join(few)} has fewer.", classes=few
        )
    taught = {image.label for image in images if image.split is Split.TRAIN}
    if untaught := sorted(names.all(by_label.keys() - taught)):
        raise BatchInvalid(
            f"All images of {', '.join(untaught)} are on the test side: a class needs others to learn from.",
            classes=untaught,
        )
    return Ingested(images=images, rejects=(*rejects, *repeated), digest=data_digest(images))


def data_digest(images: Iterable[Image]) -> str:
    """SHA-256 over label, split and content of each image, in an order that depends on nothing else."""
    lines = sorted(f"{image.label}\0{image.split}\0{image.digest}\n" for image in images)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _without_repetition(stored: Sequence[Image]) -> tuple[list[Image], list[Reject]]:
    """One image of each content, and the others as rejects; an image with the test split is kept before others."""
    kept: dict[str, Image] = {}
    repeated: list[Reject] = []
    by_wish = {Split.TEST: 0, Split.TRAIN: 1, None: 2}  # a requested split goes before none
    for image in sorted(stored, key=lambda image: (image.digest, by_wish[image.split], image.filename)):
        first = kept.setdefault(image.digest, image)
        if first is not image:
            same = "the same image as" if first.label == image.label else "another label for the same image as"
            repeated.append(Reject(image.filename, f"{same} {first.filename}"))
    return list(kept.values()), repeated


def _split(images: Sequence[Image]) -> tuple[Image, ...]:
    """Give each class an evaluation split: the batch's own, or one by content hash, which leaves neither side empty."""
    settled: list[Image] = []
    for members in _by_label(images).values():
        if any(image.split is Split.TEST for image in members):
            settled.extend(_on_side(image, image.split or Split.TRAIN) for image in members)
            continue
        undecided = [image for image in members if image.split is None] or members
        ranked = sorted(undecided, key=lambda image: image.digest)
        under = sum(int(image.digest, 16) < TEST_SHARE * _HASH_RANGE for image in ranked)
        tested = {image.id for image in ranked[: min(max(under, 1), len(members) - 1)]}
        settled.extend(_on_side(image, Split.TEST if image.id in tested else Split.TRAIN) for image in members)
    return tuple(settled)


def _on_side(image: Image, side: Split) -> Image:
    return image if image.split is side else replace(image, split=side)


def _by_label(images: Iterable[Image]) -> dict[str, list[Image]]:
    by_label: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        by_label[image.label].append(image)
    return by_label
