"""Data of experiments: which images there are, on which side, under which label, in which order."""

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import scipy.io  # type: ignore[import-untyped]
import torch
from torchvision.datasets import SVHN

from storage.errors import BatchInvalid, Invalid
from tests.trainer.experiments.pictures import files_of, pixels_of, png, write_tree, write_zip
from trainer.experiments.data.datasets import Dataset, Limits, load
from trainer.experiments.data.published import COLLECTIONS, as_side
from trainer.networks.pictures import decode
from trainer.networks.transforms import pixels


def loaded(
    *sources: str,
    folder: Path = Path("absent"),
    image_size: int | None = None,
    classes: int | None = None,
    images_per_class: int | None = None,
) -> Dataset:
    limits = Limits(classes, images_per_class)
    return load(sources, folder=folder, image_size=image_size, limits=limits, threads=2)


def by_side(dataset: Dataset) -> dict[str, set[str]]:
    return {"train": set(dataset.train.ids), "test": set(dataset.test.ids)}


def test_without_a_test_side_images_are_measured_on_by_the_hash_of_their_file(tmp_path):
    files = files_of(0, 1, each=20)
    dataset = loaded(write_tree(tmp_path, files))
    under = {name for name, data in files.items() if int(hashlib.sha256(data).hexdigest(), 16) / 2**256 < 0.2}
    assert by_side(dataset) == {"train": files.keys() - under, "test": under}
    assert under  # else the two lines above say little


def test_sides_that_the_data_have_are_kept(tmp_path):
    train, test = files_of(0, 1, each=3, side="train/"), files_of(0, 1, each=2, side="test/", first=3)
    dataset = loaded(write_tree(tmp_path, train | test))
    assert by_side(dataset) == {"train": set(train), "test": set(test)}
    assert dataset.labels == ("class-0", "class-1")


def test_pixels_and_targets_are_those_of_the_files(tmp_path):
    files = files_of(0, 1, 2, each=4)
    dataset = loaded(write_tree(tmp_path, files))
    for images in (dataset.train, dataset.test):
        for image, target, name in zip(images.pixels, images.targets.tolist(), images.ids, strict=True):
            assert torch.equal(image, pixels(decode(files[name], channels=3), 8))
            assert name.startswith(f"{dataset.labels[target]}/")


def test_other_files_and_hidden_ones_are_passed_over(tmp_path):
    extra = {"README.txt": b"hello", ".hidden/0.png": png(7, 0), "class-0/notes.txt": b"-"}
    assert loaded(write_tree(tmp_path, files_of(0, 1, each=4) | extra)).labels == ("class-0", "class-1")


def test_a_folder_of_zips_is_its_zips_in_the_order_of_their_names(tmp_path):
    second = write_zip(tmp_path / "b.zip", files_of(0, 3, each=4))
    first = write_zip(tmp_path / "a.zip", files_of(5, 2, each=4))
    dataset = loaded(str(tmp_path))
    assert dataset.labels == ("class-2", "class-5", "class-0", "class-3")
    assert dataset.groups == (0, 0, 1, 1)
    assert dataset.train.ids == loaded(first, second).train.ids
    assert loaded(second, first).labels == ("class-0", "class-3", "class-2", "class-5")


def test_an_image_counts_once_and_what_is_measured_anywhere_is_learned_nowhere(tmp_path):
    here = files_of(0, 1, each=4, side="train/") | files_of(0, 1, each=2, side="test/", first=4)
    here["train/class-0/again.png"] = here["train/class-0/0.png"]
    write_zip(tmp_path / "a.zip", here)
    there = files_of(2, 3, each=4, side="train/") | files_of(2, 3, each=2, side="test/", first=4)
    there["train/class-2/stolen.png"] = here["test/class-1/4.png"]
    write_zip(tmp_path / "b.zip", there)
    dataset = loaded(str(tmp_path))
    assert len(dataset.train) == 16
    assert not any("stolen" in name for name in dataset.train.ids)
    assert sum(name.endswith(("class-0/again.png", "class-0/0.png")) for name in dataset.train.ids) == 1


def test_limits_take_the_first_classes_and_the_first_training_images(tmp_path):
    files = files_of(0, 1, 2, each=5, side="train/") | files_of(0, 1, 2, each=3, side="test/", first=5)
    dataset = loaded(write_tree(tmp_path, files), classes=2, images_per_class=2)
    assert dataset.labels == ("class-0", "class-1")
    assert dataset.train.ids == tuple(f"train/class-{kind}/{number}.png" for kind in (0, 1) for number in (0, 1))
    assert len(dataset.test) == 6


def test_more_classes_than_there_are_cannot_be_taken(tmp_path):
    with pytest.raises(Invalid, match="--classes 3: the data has 2 classes"):
        loaded(write_tree(tmp_path, files_of(0, 1, each=4)), classes=3)


@pytest.mark.parametrize(("sizes", "expected"), [((12, 12), 12), ((12, 16), 32)])
def test_the_size_is_the_pictures_own_if_they_have_one_and_32_if_not(tmp_path, sizes, expected):
    files = {f"class-{kind}/{n}.png": png(kind, n, size=size) for kind, size in enumerate(sizes) for n in range(4)}
    dataset = loaded(write_tree(tmp_path, files))
    assert dataset.image_size == expected
    assert loaded(str(tmp_path), image_size=10).train.pixels.shape[1:] == (3, 10, 10)


def test_a_file_that_is_no_image_is_named(tmp_path):
    write_tree(tmp_path, files_of(0, 1, each=4) | {"class-1/broken.png": b"no picture"})
    with pytest.raises(Invalid, match=r"class-1/broken\.png: .*take it out"):
        loaded(str(tmp_path))


def test_a_picture_cut_off_is_named(tmp_path):
    write_tree(tmp_path, files_of(0, 1, each=4) | {"class-1/cut.png": png(1, 99)[:-60]})
    with pytest.raises(Invalid, match=r"class-1/cut\.png: damaged or truncated"):
        loaded(str(tmp_path))


def test_a_class_of_one_image_is_named(tmp_path):
    with pytest.raises(BatchInvalid, match="class-1 has fewer"):
        loaded(write_tree(tmp_path, files_of(0, each=4) | files_of(1, each=1)))


def test_what_is_nowhere_is_answered_with_what_there_is():
    with pytest.raises(Invalid, match="--data cifar11: no such file or folder, and none of the collections cifar10,"):
        loaded("cifar11")


def test_a_folder_without_class_folders_is_refused(tmp_path):
    (tmp_path / "0.png").write_bytes(png(0, 0))
    with pytest.raises(Invalid, match="holds no image in a class folder: expected class/image"):
        loaded(str(tmp_path))


def test_a_file_that_is_no_zip_is_refused(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"no zip")
    with pytest.raises(Invalid, match=r"x\.zip cannot be read as a zip archive"):
        loaded(str(tmp_path / "x.zip"))


@pytest.mark.parametrize("name", COLLECTIONS)
def test_without_a_network_folder_and_files_are_named(name, tmp_path, monkeypatch):
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(Invalid, match=f"{name} is not complete in .*cannot be downloaded") as raised:
        loaded(name, folder=tmp_path)
    for file in (*COLLECTIONS[name].files, str(tmp_path)):
        assert file in str(raised.value)


def test_mnist_is_read_from_its_folder(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images, labels = np.arange(4 * 28 * 28, dtype=np.uint8).reshape(4, 28, 28), np.array([3, 0, 3, 1], dtype=np.uint8)
    for side in ("train", "t10k"):
        (raw / f"{side}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, 4, 28, 28) + images.tobytes())
        (raw / f"{side}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 4) + labels.tobytes())
    with pytest.raises(Invalid, match="no train images of 2 - two"):
        loaded("mnist", folder=tmp_path)
    dataset = loaded("mnist", folder=tmp_path, classes=2)
    assert dataset.labels == ("0 - zero", "1 - one")
    assert dataset.train.targets.tolist() == [0, 1]
    assert dataset.train.ids == ("train/1", "train/3")
    assert torch.equal(dataset.train.pixels, torch.from_numpy(images[[1, 3]])[:, None])
    assert loaded("mnist", folder=tmp_path, classes=2, image_size=16).test.pixels.shape == (2, 1, 16, 16)


def test_arrays_as_cifar_has_them_become_tensors():
    stored = pixels_of(0, 5).permute(0, 2, 3, 1).numpy()
    read, targets = as_side(stored, [4, 0, 1, 1, 2])
    assert torch.equal(read, pixels_of(0, 5))
    assert targets.tolist() == [4, 0, 1, 1, 2]


def test_svhn_is_read_as_torchvision_reads_it(tmp_path, monkeypatch):
    """Torchvision's own reader, which needs SciPy, is the oracle; digit 0 is stored as 10."""
    digits = np.array([[10], *([digit] for digit in range(1, 10))], dtype=np.uint8)
    for side, seed in (("train", 1), ("test", 2)):
        pictures = np.random.default_rng(seed).integers(0, 256, (32, 32, 3, 10), dtype=np.uint8)
        file = tmp_path / f"{side}_32x32.mat"
        scipy.io.savemat(file, {"X": pictures, "y": digits}, do_compression=True)
        md5 = hashlib.md5(file.read_bytes()).hexdigest()
        monkeypatch.setitem(SVHN.split_list, side, [SVHN.split_list[side][0], file.name, md5])
    dataset = loaded("svhn", folder=tmp_path)
    assert dataset.labels == tuple("0123456789")
    for side in ("train", "test"):
        oracle, images = SVHN(str(tmp_path), split=side), getattr(dataset, side)
        assert np.array_equal(images.pixels.numpy(), oracle.data)
        assert np.array_equal(images.targets.numpy(), oracle.labels)
