"""Augmentation against the plain way: one image at a time, padded and cut out."""

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.learning.augmentation import Augmentation
from trainer.recipes import AugmentationKind


def augmentation(kind: AugmentationKind, *, size: int = 32, channels: int = 3, seed: int = 0) -> Augmentation:
    return Augmentation(kind, image_size=size, channels=channels, generator=torch.Generator().manual_seed(seed))


def images_of(count: int, *, size: int = 32, channels: int = 3) -> Tensor:
    shape = (count, channels, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(9))


def crops(image: Tensor, *, reach: int, mirrored: bool) -> dict[bytes, tuple[int, int, bool]]:
    """Every picture one may get from an image, by its bytes, with how it was made."""
    padded = np.pad(image.numpy(), ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
    size = image.shape[1]
    possible = {}
    for y in range(2 * reach + 1):
        for x in range(2 * reach + 1):
            cut = padded[:, y : y + size, x : x + size]
            possible[cut.tobytes()] = (y, x, False)
            if mirrored:
                possible[cut[:, :, ::-1].tobytes()] = (y, x, True)
    return possible


@pytest.mark.parametrize(
    ("kind", "channels", "mirrored"),
    [("crop", 3, False), ("crop-flip", 3, True), ("crop-flip", 1, True), ("auto", 3, True), ("auto", 1, False)],
)
@pytest.mark.parametrize("size", [16, 33])
def test_every_result_is_a_cut_of_the_reflected_image(size, kind, channels, mirrored):
    images = images_of(60, size=size, channels=channels)
    augmented = augmentation(kind, size=size, channels=channels)(images)
    assert augmented.is_contiguous(memory_format=torch.channels_last)
    assert augmented.dtype == torch.uint8
    made = [
        crops(image, reach=size // 8, mirrored=mirrored)[result.numpy().tobytes()]
        for image, result in zip(images, augmented, strict=True)
    ]
    assert len({flip for *_, flip in made}) == (2 if mirrored else 1)


def test_shifts_and_flips_are_uniform_and_independent_of_each_other():
    images = images_of(1, size=8, channels=1).expand(6000, 1, 8, 8)
    possible = crops(images[0], reach=1, mirrored=True)
    made = [possible[result.numpy().tobytes()] for result in augmentation("crop-flip", size=8, channels=1)(images)]
    counts = np.unique([y * 6 + x * 2 + flip for y, x, flip in made], return_counts=True)[1]
    # 18 equally likely outcomes of 6000: χ² with 17 degrees of freedom exceeds 40.8 once in a thousand seeds.
    assert len(counts) == 18
    assert ((counts - 6000 / 18) ** 2 / (6000 / 18)).sum() < 40.8


def test_none_leaves_the_images_alone():
    images = images_of(3)
    assert torch.equal(augmentation("none")(images), images)


def test_images_too_small_to_shift_are_only_mirrored():
    images = images_of(40, size=4)
    augmented = augmentation("crop-flip", size=4)(images)
    same = (augmented == images).flatten(1).all(1)
    flipped = (augmented == images.flip(3)).flatten(1).all(1)
    assert (same ^ flipped).all()
    assert same.any()
    assert flipped.any()


def test_the_given_images_stay_as_they_are():
    images = images_of(8)
    kept = images.clone()
    augmentation("crop-flip")(images)
    assert torch.equal(images, kept)


def test_chance_comes_from_the_generator_alone():
    images = images_of(8)
    torch.manual_seed(1)
    first = augmentation("auto", seed=5)
    one, two = first(images), first(images)
    torch.manual_seed(2)
    again = augmentation("auto", seed=5)
    assert torch.equal(again(images), one)
    assert not torch.equal(one, two)
    # resuming: the generator's state is all there is
    state = again.generator.get_state()
    resumed = augmentation("auto", seed=77)
    resumed.generator.set_state(state)
    assert torch.equal(resumed(images), two)


@pytest.mark.parametrize(
    "wrong",
    [torch.zeros(2, 3, 32, 32), images_of(2, size=16), images_of(2, channels=1), images_of(1)[0]],
    ids=["float", "size", "channels", "no batch"],
)
def test_other_images_are_refused(wrong):
    with pytest.raises(ValueError, match=r"expected uint8 images \[batch, 3, 32, 32\], got"):
        augmentation("crop")(wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_images_from_a_generator_on_the_cpu():
    images = images_of(16)
    assert torch.equal(augmentation("crop-flip")(images.cuda()).cpu(), augmentation("crop-flip")(images))
