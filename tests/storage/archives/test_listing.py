"""How lists of files are understood: layouts, sides, what is ignored, and what is said about it."""

import unicodedata
from collections.abc import Iterable, Mapping

import pytest

from storage.archives.listing import ArchiveLimits, Listing, survey
from storage.archives.names import Entry
from storage.archives.notices import EXAMPLES
from storage.domain import ClassCount, Split
from storage.errors import ArchiveUnsafe, BatchInvalid

TRAIN, TEST = Split.TRAIN, Split.TEST


def understood(names: Iterable[str]) -> Listing:
    entries = (Entry(name, 9, number, name.endswith("/"), True) for number, name in enumerate(names))
    return survey(entries, limits=ArchiveLimits())


def places(names: Iterable[str]) -> dict[str, tuple[str, Split | None]]:
    return {member.name: (member.label, member.split) for member in understood(names).members}


def tree(folders: Mapping[str, int]) -> list[str]:
    """So many images in each folder."""
    return [f"{folder}/{number}.jpg" for folder, count in folders.items() for number in range(count)]


def counts(names: Iterable[str]) -> dict[str, tuple[int, int]]:
    return {count.label: (count.train, count.test) for count in understood(names).classes}


# Sides

PAIRS = [
    ("train", "test"),
    ("Training", "Testing"),
    ("TRAIN", "VAL"),
    ("train", "valid"),
    ("train", "validation"),
    ("training", "dev"),
    ("train", "eval"),
    ("trn", "tst"),
    ("training_set", "test_set"),
    ("train-images", "holdout"),
    ("seg_train", "seg_test"),
    ("trainset", "evaluation data"),
    ("train2017", "val2017"),
]


@pytest.mark.parametrize("around", ["", "flowers/", "some/where/flowers/"])
@pytest.mark.parametrize(("train", "test"), PAIRS)
def test_sides_are_known_by_any_usual_name(around, train, test):
    names = tree({f"{around}{side}/{label}": 2 for side in (train, test) for label in ("a", "b")})
    assert counts(names) == {"a": (2, 2), "b": (2, 2)}


@pytest.mark.parametrize(("train", "test"), PAIRS)
def test_sides_may_lie_within_the_classes(train, test):
    names = tree({f"{label}/{side}": 2 for side in (train, test) for label in ("a", "b")})
    assert counts(names) == {"a": (2, 2), "b": (2, 2)}


@pytest.mark.parametrize("doubled", ["train/train", "training_set/training_set"])
def test_a_side_may_be_written_twice(doubled):
    assert counts(tree({f"{doubled}/a": 3, f"{doubled}/b": 3, "test/test/a": 1, "test/test/b": 1})) == {
        "a": (3, 1),
        "b": (3, 1),
    }


def test_validation_images_are_for_evaluation_and_this_is_said():
    listing = understood(tree({"train/a": 7, "valid/a": 2, "test/a": 1, "train/b": 7, "valid/b": 2, "test/b": 1}))
    assert listing.classes == (ClassCount("a", 7, 3), ClassCount("b", 7, 3))
    assert any("Validation images count as evaluation images" in note for note in listing.notes)


def test_without_validation_nothing_is_said():
    assert understood(tree({"train/a": 2, "test/a": 2})).notes == ()


# Layouts


def test_images_in_folders_of_a_class_are_its_images():
    listing = understood(tree({"cat/indoor/day": 2, "cat/outdoor": 2, "dog": 2}))
    assert listing.classes == (ClassCount("cat", 4, 0), ClassCount("dog", 2, 0))
    assert listing.rejects == ()
    assert any(note.startswith("4 images in folders within a class folder") for note in listing.notes)


def test_so_are_those_on_a_side():
    names = tree({"train/cat/indoor": 2, "train/dog": 2, "test/cat/outdoor/night": 1, "test/dog": 1})
    assert counts(names) == {"cat": (2, 1), "dog": (2, 1)}


@pytest.mark.parametrize("around", ["data/", "home/me/data/"])
def test_folders_around_everything_are_left_out_of_account_and_this_is_said(around):
    listing = understood([*tree({f"{around}cat": 2, f"{around}dog": 2}), "1.jpg", f"{around}README"])
    assert [count.label for count in listing.classes] == ["cat", "dog"]
    assert listing.notes == (f"The folders around the classes, {around}, were left out of account.",)


def test_so_is_one_within_each_side():
    assert counts(tree({"train/images/a": 2, "train/images/b": 2, "test/images/a": 1, "test/images/b": 1})) == {
        "a": (2, 1),
        "b": (2, 1),
    }


def test_an_unlabelled_test_folder_is_ignored_and_this_is_said():
    listing = understood(tree({"train/cat": 3, "train/dog": 3, "test": 50}))
    assert listing.classes == (ClassCount("cat", 3, 0), ClassCount("dog", 3, 0))
    assert listing.rejects == ()
    assert [(group.count, group.files[0]) for group in listing.ignored] == [(50, "test/0.jpg")]
    assert "without a class" in listing.ignored[0].reason


@pytest.mark.parametrize(
    ("folders", "seen"),
    [
        ({"test": 5}, "test/"),
        ({"train": 5}, "train/"),
        ({"train": 5, "test": 5}, "test/, train/"),
        ({"data/train": 5, "data/val": 5}, "train/, val/"),
        ({"train2017": 5, "val2017": 5}, "train2017/, val2017/"),
        ({"train": 9, "test/cat": 2, "test/dog": 2}, "test/, train/"),
        ({"cat": 5, "dog": 5, "test": 5}, "test/"),
        ({"cat": 5, "dog": 5, "validation": 2}, "validation/"),
        ({"cat": 5, "dog": 5, "test/cat": 2, "test/dog": 2}, "test/"),
        ({"cat": 5, "dog": 5, "train/cat": 2, "train/dog": 2}, "train/"),
        ({"images": 5}, "images/"),
        ({"dataset/images": 5}, "images/"),
        ({"images": 5, "masks": 5}, "images/ and masks/"),
        ({"train/images": 5, "valid/images": 5, "test/images": 5}, "images/"),
        ({"images/train": 5, "images/val": 5}, "train/, val/"),
        ({"VOC2012/JPEGImages": 5, "VOC2012/SegmentationClass": 5}, "JPEGImages/ and SegmentationClass/"),
    ],
)
def test_folders_without_classes_are_refused_with_what_was_seen_and_what_is_expected(folders, seen):
    labels = [f"{folder}/{number}.txt" for folder in folders for number in range(3)]
    with pytest.raises(BatchInvalid) as refused:
        understood([*tree(folders), *labels])
    assert seen in refused.value.detail
    assert "expected class/image, or train/class/image and test/class/image" in refused.value.detail


@pytest.mark.parametrize(
    "folders",
    [
        {"train": 2, "bus": 2},
        {"train": 2, "train/steam": 1, "bus": 2},
        {"valid": 5, "invalid": 2},
        {"de": 2, "en": 2, "te": 2, "tr": 2},
        {"images": 2, "cat": 2},
        {"contest": 2, "trainer": 2},
    ],
)
def test_names_that_classes_have_too_are_classes_beside_others(folders):
    assert set(counts(tree(folders))) == {folder.partition("/")[0] for folder in folders}


def test_a_few_strays_do_not_change_how_the_rest_is_read():
    listing = understood(
        [*tree({"train/a": 5, "train/b": 5, "test/a": 2, "test/b": 2, "odd": 1}), "1.jpg", "train/x.jpg"]
    )
    assert listing.classes == (ClassCount("a", 5, 2), ClassCount("b", 5, 2))
    assert [reject.file for reject in listing.rejects] == ["odd/0.jpg", "1.jpg", "train/x.jpg"]
    assert {reject.reason for reject in listing.rejects} == {
        "not where an image is expected: train/class/image or test/class/image"
    }


# What is left out


@pytest.mark.parametrize(
    "name",
    [
        "cat/Icon\r",
        ".git/a\\b",
        ".git/HEAD",
        "cat/.ipynb_checkpoints/1-checkpoint.jpg",
        "cat/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
        "__MACOSX/cat/._1.jpg",
        "data/__MACOSX/cat/1.jpg",
        "cat/Thumbs.db",
        "dog/DESKTOP.INI",
        "$RECYCLE.BIN/1.jpg",
        "System Volume Information/x",
        "lost+found/1.jpg",
        ".hidden/" + "x" * 2000,
        ".cache/\x1b[2J.jpg",
        ".hidden/1.jpg",
        "x" * 5 + "/.\u202ejpg",
    ],
)
def test_what_is_to_be_ignored_is_ignored_before_anything_else_is_checked(name):
    listing = understood([*tree({"cat": 2, "dog": 2}), name])
    assert listing.classes == (ClassCount("cat", 2, 0), ClassCount("dog", 2, 0))
    assert listing.rejects == ()
    assert [group.count for group in listing.ignored] == [1]
    assert all(char.isprintable() for file in listing.ignored[0].files for char in file if char != "\u202e")
    assert len(listing.ignored[0].files[0]) <= 1024


@pytest.mark.parametrize("name", [".git/../../1.jpg", "/.git/1.jpg", "C:\\.git\\1.jpg", "__MACOSX\\..\\..\\1.jpg"])
def test_but_a_way_out_is_refused_wherever_it_stands(name):
    with pytest.raises(ArchiveUnsafe):
        understood([*tree({"cat": 2, "dog": 2}), name])


def test_ignored_files_are_counted_and_a_few_are_named():
    listing = understood([*tree({"cat": 2}), *(f"cat/{number}.txt" for number in range(1000))])
    assert [(group.count, len(group.files)) for group in listing.ignored] == [(1000, EXAMPLES)]


@pytest.mark.parametrize(
    "others",
    [["bird/"], ["bird/", "bird/eggs/"], ["bird/notes.txt"], ["bird/1.tif"], ["./bird/"]],
    ids=["empty", "nested", "text only", "rejects only", "from here"],
)
def test_a_class_folder_without_images_is_told(others):
    listing = understood(["cat/", "dog/", *tree({"cat": 2, "dog": 2}), *others])
    assert {count.label for count in listing.classes} == {"cat", "dog"}
    assert [group.files for group in listing.ignored if "class folder" in group.reason] == [("bird/",)]


def test_so_is_one_on_a_side():
    listing = understood(["data/", "data/train/", "data/train/bird/", *tree({"data/train/cat": 2, "data/test/cat": 1})])
    assert [group.files for group in listing.ignored] == [("bird/",)]


# Spellings

ZURICH = "Zürich"


@pytest.mark.parametrize(
    "other",
    [
        unicodedata.normalize("NFD", ZURICH),
        f"{ZURICH} ",
        f"  {ZURICH}",
        f"{ZURICH}\u00a0",
        f"{ZURICH}\t"[:-1] + "\u3000",
    ],
)
def test_spellings_that_look_alike_are_one_class_and_this_is_said(other):
    listing = understood(tree({ZURICH: 2, other: 2, "bern": 2}))
    assert listing.classes == (ClassCount("Zürich", 4, 0), ClassCount("bern", 2, 0))
    assert [note for note in listing.notes if f"are read as class {ZURICH!r}" in note]


def test_one_folder_in_the_form_that_macos_writes_needs_no_word():
    listing = understood(tree({unicodedata.normalize("NFD", ZURICH): 2, "bern": 2}))
    assert [count.label for count in listing.classes] == ["Zürich", "bern"]
    assert listing.notes == ()


def test_case_stays_and_this_is_said():
    listing = understood(tree({"Cat": 2, "cat": 2}))
    assert [count.label for count in listing.classes] == ["Cat", "cat"]
    assert listing.notes == ("Classes differ by case alone: 'Cat' and 'cat'.",)


def test_a_backslash_separates_folders():
    assert places(["pets\\cat\\1.jpg", "pets\\dog\\1.jpg"]) == {
        "pets/cat/1.jpg": ("cat", None),
        "pets/dog/1.jpg": ("dog", None),
    }
