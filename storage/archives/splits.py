"""Names of folders that mean the training or the evaluation side of a split."""

import re
from functools import lru_cache

from storage.domain import Split

_WORDS = {
    Split.TRAIN: "train training tr trn",
    Split.TEST: "test testing tst te eval evaluation val valid validation dev holdout",
}
_SIDES = {word: split for split, words in _WORDS.items() for word in words.split()}
_VALIDATION = frozenset(["val", "valid", "validation", "dev"])
_MAYBE_CLASSES = frozenset(["train", "tr", "te", "valid", "dev"])  # or classes: a vehicle, languages, products, a role
_KINDS = "|".join(sorted(_SIDES, key=len, reverse=True))
_NAME = re.compile(  # test, Test_Set, training-images, seg_train, val2017
    rf"(?:seg[ _-])?({_KINDS})(?:[ _-]?(?:set|data|dataset|images|imgs|split))?[ _-]?\d*"
)


@lru_cache(maxsize=4096)
def side_of(folder: str) -> Split | None:
    """The side that a folder's name means, or None; validation images belong to the evaluation side."""
    found = _NAME.fullmatch(folder.lower())
    return _SIDES[found[1]] if found else None


@lru_cache(maxsize=4096)
def is_validation(folder: str) -> bool:
    """Whether a folder's name means a validation set, such as ``val`` or ``dev``."""
    found = _NAME.fullmatch(folder.lower())
    return found is not None and found[1] in _VALIDATION


def may_be_a_class(folder: str) -> bool:
    """Whether a folder's name that means a side may also be the name of a class."""
    return folder.lower() in _MAYBE_CLASSES
