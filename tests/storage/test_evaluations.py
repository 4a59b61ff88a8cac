"""The file of what a version said of each evaluation image."""

import io
from dataclasses import replace

import numpy as np
import pytest

from storage.domain import new_id
from storage.evaluations import Evaluations, decoded, ids_of


def some(images: int, classes: int = 7) -> tuple[Evaluations, list[str]]:
    """Evaluations of images, and the ids of these."""
    rng = np.random.default_rng(images)
    ids = [new_id() for _ in range(images)]
    results = Evaluations(
        ids=ids_of(ids),
        targets=rng.integers(classes, size=images).astype(np.int32),
        tag=rng.integers(classes, size=images).astype(np.int32),
        taw=rng.integers(classes, size=images).astype(np.int32),
        top=rng.integers(classes, size=(images, 5)).astype(np.int32),
        scores=rng.random((images, 5)).astype(np.float16),
    )
    return results, ids


@pytest.mark.parametrize("images", [0, 1, 300])
def test_what_is_written_is_read(images: int):
    results, ids = some(images)
    found = decoded(results.encoded())
    assert len(found) == images
    assert [found.image_id(row) for row in range(images)] == ids
    for name in ("ids", "targets", "tag", "taw", "top", "scores"):
        assert np.array_equal(getattr(found, name), getattr(results, name)), name
    assert found.predicted("tag").tolist() == results.tag.tolist()
    assert found.predicted("taw").tolist() == results.taw.tolist()


def test_equal_arrays_make_equal_files():
    results, _ = some(20)
    assert results.encoded() == results.encoded()


def test_ten_thousand_images_take_little_room():
    assert len(some(10_000)[0].encoded()) < 600_000


@pytest.mark.parametrize(
    "wrong",
    [
        {"targets": np.zeros(3, np.int32)},
        {"tag": np.zeros(4, np.int64)},
        {"ids": np.zeros((4, 8), np.uint8)},
        {"top": np.zeros(4, np.int32)},
        {"scores": np.zeros((4, 4), np.float16)},
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected|ids: expected"):
        replace(some(4)[0], **wrong)


@pytest.mark.parametrize("image", ["", "xy" * 16, "00" * 15])
def test_what_is_no_id_is_refused(image: str):
    with pytest.raises(ValueError, match=r"."):
        ids_of([image])


def file_of(**arrays: object) -> bytes:
    """A file with other arrays."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04 and no more",
        file_of(ids=np.zeros((1, 16), np.uint8)),
        file_of(**{name: np.array([{}], dtype=object) for name in ("ids", "targets", "tag", "taw", "top", "scores")}),
        some(4)[0].encoded()[:-30],
    ],
)
def test_another_file_is_refused(data: bytes):
    with pytest.raises(ValueError, match=r"."):
        decoded(data)
