"""What a comparison says of new classes, and of where a loss comes from."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from api.views.comparison import Side, compare
from storage.evaluations import Evaluations


def side(
    number: int,
    classes: str,
    images: list[int],
    targets: list[int],
    predicted: list[int],
    *,
    merged: dict[str, str] | None = None,
) -> Side:
    """A version of one-letter classes with what it said of images, which numbers stand for."""
    results = Evaluations(
        ids=np.frombuffer(b"".join(image.to_bytes(16) for image in images), np.uint8).reshape(-1, 16),
        targets=np.array(targets, np.int32),
        tag=np.array(predicted, np.int32),
        taw=np.array([one if one < 2 else target for one, target in zip(predicted, targets, strict=True)], np.int32),
        top=np.array(predicted, np.int32)[:, None],
        scores=np.ones((len(images), 1), np.float16),
    )
    return Side(cast(Any, SimpleNamespace(number=number, classes=tuple(classes), merged=merged or {})), results)


def test_classes_that_both_know_are_not_new_without_an_image_of_both():
    """As with retention none: the images of the first version were gone when the second one was evaluated."""
    first = side(1, "ab", [1, 2, 3, 4], [0, 0, 1, 1], [0, 0, 1, 0])
    second = side(2, "abc", [5, 6, 7], [2, 2, 2], [2, 2, 0])
    assert compare("m", first, second, form="tag").new_classes is None
    new = compare("m", second, first, form="tag").new_classes
    assert new is not None
    assert new.hits == 2


@pytest.mark.parametrize(
    ("aware", "words"),
    [(0, "0 of these 12 are lost: most of it is confusion"), (9, "9 of these 12 are lost: most of it is forgetting.")],
)
def test_the_sentence_tells_forgetting_from_confusion(aware: int, words: str):
    """Of 40 images of two classes, 12 are taken for a class of another task, or for the other one of their own."""
    images, targets = list(range(40)), [0] * 40
    before = side(1, "ab", images, targets, targets)
    after = side(2, "abc", images, targets, [2] * 12 + [0] * 28)
    assert after.results is not None
    after.results.taw[:aware] = 1
    told = compare("m", after, before, form="tag").sentence
    assert told.startswith("Of the 40 images that both were evaluated on, version 2 has 28 right and version 1 40")
    assert words in told
    assert "of these" not in compare("m", before, before, form="tag").sentence
    after.results.taw[:] = 0
    assert "of these" not in compare("m", after, before, form="taw").sentence


def test_images_that_were_moved_to_another_class_in_between_are_left_out_and_counted():
    """Image 3 was of class b when the first version was evaluated, and of class a for the second."""
    first = side(1, "ab", [1, 2, 3, 4], [0, 0, 1, 1], [0, 0, 1, 1])
    second = side(2, "ab", [1, 2, 3, 4], [0, 0, 0, 1], [0, 1, 1, 1])
    told = compare("m", second, first, form="tag")
    assert told.together is not None
    assert (told.relabelled, told.together.images, told.together.worse) == (1, 3, 1)
    assert "Left out are 1 images" not in told.sentence
    assert "Left out is 1 image that was moved to another class" in told.sentence


def test_classes_that_one_of_the_two_has_merged_count_as_one():
    """Classes a and b became x: that the first version took a for b is no mistake by then."""
    first = side(1, "abc", [1, 2, 3, 4], [0, 1, 2, 2], [1, 1, 0, 2])
    second = side(2, "xc", [1, 2, 3, 4], [0, 0, 1, 1], [0, 0, 1, 1], merged={"a": "x", "b": "x"})
    for one, other, better in ((second, first, 1), (first, second, 0)):
        told = compare("m", one, other, form="tag")
        assert told.together is not None
        assert (told.relabelled, told.together.images, told.together.better) == (0, 4, better)
        assert told.together.worse == 1 - better
        assert told.new_classes is None
