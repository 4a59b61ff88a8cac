"""Which images of a batch count, and on which side each is: no storage, no archive, only what was found in them."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from storage.archives.bad_share import check_share
from storage.domain import Image, Pack, Reject, Split
from storage.errors import BatchInvalid

TEST_SHARE = 0.2  # of the range of the content hash (DESIGN, Evaluation images)
_HASH_RANGE = 1 << 256


@dataclass(frozen=True)
class Ingested:
    """What decoding a batch found."""

    images: tuple[Image, ...]
    rejects: tuple[Reject, ...]
    digest: str
    packs: tuple[Pack, ...] = ()  # that were written for the images


def settle(
    stored: Sequence[Image], rejects: Sequence[Reject], *, labels: Collection[str], max_bad_share: float
) -> Ingested:
    """Drop duplicates, put each image on its side, and digest the whole.

    ``labels`` are the classes the batch set out with: one that comes out with fewer than two images, or with none to
    learn from, raises `BatchInvalid`, as does a share of rejects above ``max_bad_share``.
    """
    check_share(rejects, images=len(stored), limit=max_bad_share)
    unique, repeated = _without_repetition(stored)
    images = _split(unique)
    by_label = _by_label(images)
    if few := sorted(label for label in labels if len(by_label.get(label, ())) < 2):
        raise BatchInvalid(
            f"A class needs at least two distinct, readable images; {', '.join(few)} has fewer.", classes=few
        )
    taught = {image.label for image in images if image.split is Split.TRAIN}
    if untaught := sorted(by_label.keys() - taught):
        raise BatchInvalid(
            f"All images of {', '.join(untaught)} are on the test side: a class needs others to learn from.",
            classes=untaught,
        )
    return Ingested(images=images, rejects=(*rejects, *repeated), digest=data_digest(images))


def data_digest(images: Iterable[Image]) -> str:
    """SHA-256 over label, side and content of each image, in an order that depends on nothing else."""
    lines = sorted(f"{image.label}\0{image.split}\0{image.digest}\n" for image in images)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _without_repetition(stored: Sequence[Image]) -> tuple[list[Image], list[Reject]]:
    """One image of each content: the test side keeps it if both have it, and two labels for it are one too many."""
    kept: dict[str, Image] = {}
    repeated: list[Reject] = []
    by_wish = {Split.TEST: 0, Split.TRAIN: 1, None: 2}  # a side that was asked for counts more than none
    for image in sorted(stored, key=lambda image: (image.digest, by_wish[image.split], image.filename)):
        first = kept.setdefault(image.digest, image)
        if first is not image:
            same = "the same image as" if first.label == image.label else "another label for the same image as"
            repeated.append(Reject(image.filename, f"{same} {first.filename}"))
    return list(kept.values()), repeated


def _split(images: Sequence[Image]) -> tuple[Image, ...]:
    """Give every class an evaluation side: the one it came with, or by content hash – never none, never all."""
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
