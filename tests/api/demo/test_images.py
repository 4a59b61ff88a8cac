"""What the demonstration uploads, and what it keeps back."""

import zipfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from api.demo.images import Picture, fitting_shape, hold_out, read_folder, split_classes, write_archive, write_digits


def tree(folder: Path, *names: str, mode: str = "RGB", size: int = 40) -> Path:
    """An ImageFolder tree of empty images."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (size, size)).save(path)
    return folder


def pictures(**counts: int) -> list[Picture]:
    """So many pictures of each class."""
    return [
        Picture(Path(f"{label}/{number}.png"), label, None)
        for label, count in counts.items()
        for number in range(count)
    ]


def test_the_digits_are_saved_as_scikit_learn_ships_them(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    digits = read_folder(write_digits(tmp_path / "digits"))
    assert Counter(digit.label for digit in digits) == Counter(map(str, load_digits().target))
    with Image.open(tmp_path / "digits" / str(load_digits().target[7]) / "0007.png") as image:
        assert (image.mode, image.size) == ("L", (8, 8))
        assert [round(value * 16 / 255) for value in image.tobytes()] == load_digits().data[7].tolist()
    assert fitting_shape(digits) == (16, 1)


def test_both_layouts_are_read(tmp_path: Path) -> None:
    plain = read_folder(tree(tmp_path / "plain", "cat/1.png", "dog/1.jpg", "dog/.hidden.png"))
    assert [(picture.label, picture.split) for picture in plain] == [("cat", None), ("dog", None)]
    nested = read_folder(tree(tmp_path / "nested", "cat/a/1.png", "cat/b/1.png", "dog/1.jpg"))
    assert [picture.label for picture in nested] == ["cat", "cat", "dog"]
    with zipfile.ZipFile(write_archive(nested, tmp_path / "nested.zip")) as archive:
        assert archive.namelist() == ["cat/1.png", "cat/1-1.png", "dog/1.jpg"]
    split = read_folder(tree(tmp_path / "split", "train/cat/1.png", "val/cat/2.png"))
    assert [(picture.path.name, picture.split) for picture in split] == [("1.png", "train"), ("2.png", "test")]
    assert fitting_shape(split) == (32, 3)


@pytest.mark.parametrize(
    ("classes", "per_step", "sizes"), [(10, 2, [2] * 5), (5, 2, [2, 3]), (7, 3, [3, 4]), (8, 3, [3, 3, 2]), (2, 5, [2])]
)
def test_no_step_has_a_single_class(classes: int, per_step: int, sizes: list[int]) -> None:
    labels = [chr(ord("a") + number) for number in range(classes)]
    steps = split_classes(pictures(**dict.fromkeys(labels, 1)), per_step)
    assert [len(step) for step in steps] == sizes
    assert [label for step in steps for label in step] == labels


def test_one_class_is_not_enough() -> None:
    with pytest.raises(ValueError, match="at least two classes"):
        split_classes(pictures(a=9), 2)


def test_the_same_few_images_are_held_out_each_time_and_never_too_many() -> None:
    every = pictures(a=100, b=9, c=3)
    kept, held = hold_out(every, per_class=3)
    assert Counter(picture.label for picture in held) == {"a": 3, "b": 2}
    assert not set(kept) & set(held)
    assert {*kept, *held} == set(every)
    assert hold_out(list(reversed(every)), per_class=3)[1] == held


def test_an_archive_has_the_layout_the_service_reads(tmp_path: Path) -> None:
    folder = tree(tmp_path / "split", "train/cat/1.png", "test/cat/2.png")
    with zipfile.ZipFile(write_archive(read_folder(folder), tmp_path / "step.zip")) as archive:
        assert archive.namelist() == ["test/cat/2.png", "train/cat/1.png"]
        assert archive.read("test/cat/2.png") == (folder / "test/cat/2.png").read_bytes()
