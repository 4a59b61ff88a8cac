"""New classes of a comparison are those that the other version does not know, whatever images the two share."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from api.views.comparison import Side, compare
from storage.evaluations import Evaluations


def side(number: int, classes: str, images: list[int], targets: list[int], predicted: list[int]) -> Side:
    """A version of one-letter classes with what it said of images, which numbers stand for."""
    said = Evaluations(
        ids=np.frombuffer(b"".join(image.to_bytes(16) for image in images), np.uint8).reshape(-1, 16),
        targets=np.array(targets, np.int32),
        tag=np.array(predicted, np.int32),
        taw=np.array(predicted, np.int32),
        top=np.array(predicted, np.int32)[:, None],
        scores=np.ones((len(images), 1), np.float16),
    )
    return Side(cast(Any, SimpleNamespace(number=number, classes=tuple(classes))), said)


def test_classes_that_both_know_are_not_new_without_an_image_of_both():
    """As with retention none: the images of the first version were gone when the second one was evaluated."""
    first = side(1, "ab", [1, 2, 3, 4], [0, 0, 1, 1], [0, 0, 1, 0])
    second = side(2, "abc", [5, 6, 7], [2, 2, 2], [2, 2, 0])
    assert compare("m", first, second, form="tag").new_classes is None
    new = compare("m", second, first, form="tag").new_classes
    assert new is not None
    assert new.hits == 2
