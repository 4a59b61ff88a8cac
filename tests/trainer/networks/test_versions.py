"""Versions on disk: what was written is what is served."""

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from trainer.networks import EvaluationTransform, IncrementalNetwork, LoadedVersion, build, load_version, write_version

ROOT = Path(__file__).parents[3]
TRANSFORM = EvaluationTransform(image_size=16, channels=3, mean=(0.1, 0.2, 0.3), std=(0.3, 0.2, 0.25))
TASKS = [["cat", "dög"], ["eel"]]


def png(seed: int, size: tuple[int, int] = (20, 12)) -> bytes:
    values = torch.randint(0, 256, (size[0] * size[1] * 3,), generator=torch.Generator().manual_seed(seed))
    file = io.BytesIO()
    Image.frombytes("RGB", size, bytes(values.tolist())).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def network() -> IncrementalNetwork:
    torch.manual_seed(4)
    network = build("resnet32", channels=3, image_size=16, task_sizes=(2, 1))
    network(torch.rand(8, 3, 16, 16))  # so that the running statistics are not the initial ones
    return network.eval()


@pytest.fixture
def folder(network: IncrementalNetwork, tmp_path: Path) -> Path:
    write_version(
        tmp_path, network, transform=TRANSFORM, manifest={"tasks": TASKS, "parent": 3, "recipe": {"epochs": 2}}
    )
    return tmp_path


def test_a_loaded_version_is_the_written_network(network, folder):
    loaded = load_version(folder)
    images = torch.rand(3, 3, 16, 16)
    assert not loaded.network.training
    assert torch.equal(loaded.network(images), network(images))
    assert loaded.transform == TRANSFORM
    assert loaded.tasks == (("cat", "dög"), ("eel",))
    assert loaded.labels == ("cat", "dög", "eel")


def test_further_files_are_described_and_checked(network, tmp_path):
    further = tmp_path / "network.onnx"
    further.write_bytes(b"a graph")
    write_version(tmp_path, network, transform=TRANSFORM, manifest={"tasks": TASKS}, files=("network.onnx",))
    described = json.loads((tmp_path / "version.json").read_text())["files"]
    assert described.keys() == {"weights.safetensors", "network.onnx"}
    assert described["network.onnx"] == {"sha256": hashlib.sha256(b"a graph").hexdigest(), "bytes": 7}
    load_version(tmp_path)
    further.write_bytes(b"another")
    with pytest.raises(ValueError, match=r"network\.onnx is damaged"):
        load_version(tmp_path)


def test_a_loaded_cosine_version_is_the_written_network(tmp_path):
    torch.manual_seed(4)
    network = build("resnet32", channels=3, image_size=16, task_sizes=(2, 1), head_kind="cosine")
    network(torch.rand(8, 3, 16, 16))
    network.get_parameter("log_scale").data.fill_(2.5)
    write_version(tmp_path, network.eval(), transform=TRANSFORM, manifest={"tasks": TASKS})
    assert json.loads((tmp_path / "version.json").read_text())["head"] == "cosine"
    loaded = load_version(tmp_path).network
    images = torch.rand(3, 3, 16, 16)
    assert loaded.head_kind == "cosine"
    assert loaded.get_parameter("log_scale").item() == 2.5
    assert torch.equal(loaded(images), network(images))


@pytest.mark.parametrize("scale", [1.27, -0.49])
def test_a_cosine_version_of_an_earlier_release_predicts_as_it_did(scale, tmp_path):
    torch.manual_seed(4)
    network = build("resnet32", channels=3, image_size=16, task_sizes=(2, 1), head_kind="cosine").eval()
    write_version(tmp_path, network, transform=TRANSFORM, manifest={"tasks": TASKS})
    weights, manifest = tmp_path / "weights.safetensors", json.loads((tmp_path / "version.json").read_text())
    tensors = load_file(weights)
    del tensors["log_scale"]
    save_file(tensors | {"scale": torch.tensor(scale)}, weights)
    manifest["files"]["weights.safetensors"]["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    (tmp_path / "version.json").write_text(json.dumps(manifest))
    loaded = load_version(tmp_path).network
    images = torch.rand(3, 3, 16, 16)
    then = network(images) / network.scale * scale
    torch.testing.assert_close(loaded(images), then)


def test_the_manifest_describes_network_and_files(folder):
    manifest = json.loads((folder / "version.json").read_text())
    weights = (folder / "weights.safetensors").read_bytes()
    assert manifest == {
        "tasks": TASKS,
        "parent": 3,
        "recipe": {"epochs": 2},
        "format": 1,
        "network": "resnet32",
        "image_size": 16,
        "channels": 3,
        "head": "linear",
        "transform": {
            "image_size": 16,
            "channels": 3,
            "resize": "bilinear",
            "mean": [0.1, 0.2, 0.3],
            "std": [0.3, 0.2, 0.25],
        },
        "files": {"weights.safetensors": {"sha256": hashlib.sha256(weights).hexdigest(), "bytes": len(weights)}},
    }
    assert load_version(folder).manifest == manifest


def test_further_files_of_a_version_are_described_and_checked(network, tmp_path):
    (tmp_path / "network.onnx").write_bytes(b"a graph")
    write_version(tmp_path, network, transform=TRANSFORM, manifest={"tasks": TASKS}, files=("network.onnx",))
    described = load_version(tmp_path).manifest["files"]
    assert list(described) == ["weights.safetensors", "network.onnx"]
    assert described["network.onnx"] == {"sha256": hashlib.sha256(b"a graph").hexdigest(), "bytes": 7}
    (tmp_path / "network.onnx").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"network\.onnx is damaged"):
        load_version(tmp_path)


def test_a_further_file_that_is_not_there_is_no_version(network, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"network\.onnx"):
        write_version(tmp_path, network, transform=TRANSFORM, manifest={"tasks": TASKS}, files=("network.onnx",))
    assert not (tmp_path / "version.json").exists()


def test_writing_the_same_version_twice_gives_the_same_bytes(network, folder, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    write_version(again, network, transform=TRANSFORM, manifest={"tasks": TASKS, "parent": 3, "recipe": {"epochs": 2}})
    for name in ("weights.safetensors", "version.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_channels_last_networks_are_written_in_the_plain_layout(network, folder, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    network.to(memory_format=torch.channels_last)
    write_version(again, network, transform=TRANSFORM, manifest={"tasks": TASKS})
    plain, last = load_file(folder / "weights.safetensors"), load_file(again / "weights.safetensors")
    assert all(torch.equal(plain[name], last[name]) for name in plain)


def test_a_loaded_version_survives_the_removal_of_its_folder(folder):
    loaded = load_version(folder)
    before = loaded.probabilities([png(1)])
    with (folder / "weights.safetensors").open("r+b") as file:
        file.truncate(0)  # a network that still read from the file would now crash
    assert torch.equal(loaded.probabilities([png(1)]), before)


def test_probabilities_are_the_softmax_over_all_classes(network, folder):
    images = [png(1), png(2, (16, 16))]
    loaded = load_version(folder)
    pixels = []
    for data in images:
        picture = Image.open(io.BytesIO(data)).resize((16, 16), Image.Resampling.BILINEAR)
        pixels.append(torch.tensor(list(picture.tobytes())).view(16, 16, 3).permute(2, 0, 1) / 255)
    inputs = (torch.stack(pixels) - torch.tensor(TRANSFORM.mean).view(3, 1, 1)) / torch.tensor(TRANSFORM.std).view(
        3, 1, 1
    )
    found = loaded.probabilities(images)
    torch.testing.assert_close(found, network(inputs).detach().softmax(1), rtol=1e-5, atol=1e-6)
    assert found.sum(1).tolist() == pytest.approx([1, 1])
    assert not found.requires_grad


def test_no_images_have_no_probabilities(folder):
    assert load_version(folder).probabilities([]).shape == (0, 3)


def test_top_k_gives_the_best_labels_first(folder):
    loaded: LoadedVersion = load_version(folder)
    probabilities = torch.tensor([[0.2, 0.5, 0.3], [0.7, 0.1, 0.2]], dtype=torch.float64)
    assert loaded.top_k(probabilities, 2) == [[("dög", 0.5), ("eel", 0.3)], [("cat", 0.7), ("eel", 0.2)]]
    assert [label for label, _ in loaded.top_k(probabilities, 9)[0]] == ["dög", "eel", "cat"]


def test_one_flipped_byte_is_refused(folder):
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        ValueError, match=r"weights.safetensors is damaged: SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64}"
    ):
        load_version(folder)


@pytest.mark.parametrize(("key", "changed"), [("format", 2), ("head", "prototype")])
def test_a_later_release_s_version_is_refused(key, changed, folder):
    manifest = json.loads((folder / "version.json").read_text())
    (folder / "version.json").write_text(json.dumps(manifest | {key: changed}))
    with pytest.raises(ValueError, match=f"{changed!r}.*this release reads format 1 with head 'linear' or 'cosine'"):
        load_version(folder)


def test_labels_that_do_not_fit_the_heads_are_refused(network, tmp_path):
    with pytest.raises(ValueError, match=r"heads have \(2, 1\) classes"):
        write_version(tmp_path, network, transform=TRANSFORM, manifest={"tasks": [["cat"], ["dog"]]})


def test_a_folder_is_enough_in_a_fresh_interpreter(folder):
    (folder / "image.png").write_bytes(png(3))
    program = """
import json, pathlib, sys
for name in ("numpy", "pydantic", "storage", "losses", "sqlalchemy", "torchvision"):
    sys.modules[name] = None
from trainer.networks import load_version
folder = pathlib.Path(sys.argv[1])
print(json.dumps(load_version(folder).probabilities([(folder / "image.png").read_bytes()]).tolist()))
"""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    expected = load_version(folder).probabilities([png(3)])
    torch.testing.assert_close(torch.tensor(json.loads(ran.stdout)), expected, rtol=1e-6, atol=1e-7)
