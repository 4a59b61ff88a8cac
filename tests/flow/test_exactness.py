"""What is stored is what was trained: repeatable to the bit, complete in its folder, measured as it says."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import torch

from api.client.client import Client
from storage.blobs.opening import open_blobs
from storage.database.engine import Database
from storage.domain import Split
from storage.history import models, versions
from storage.material import images
from storage.material.packs import original
from storage.settings import Settings
from storage.work import increments
from tests.flow.conftest import Grower, Service
from tests.patterns import QUICK, SIZE, unseen, write_zip
from trainer.export.agreement import open_session
from trainer.networks import LoadedVersion, decode, load_version, pixels

pytestmark = pytest.mark.flow


def test_one_seed_gives_one_set_of_weights(client: Client, tmp_path: Path) -> None:
    archives = [write_zip(tmp_path / "1.zip", ["anise", "basil"]), write_zip(tmp_path / "2.zip", ["chive", "dill"])]
    digests = []
    for name, seed in (("seeded-a", 7), ("seeded-b", 7), ("seeded-c", 8)):
        client.create_model(
            name, image_size=SIZE, recipe=QUICK | {"seed": seed, "epochs": 2, "augmentation": "crop-flip"}
        )
        for archive in archives:
            client.wait(client.start_increment(name, archive)["id"])
        digests.append([v["files"]["weights.safetensors"]["sha256"] for v in client.versions(name)])
    assert digests[0] == digests[1]
    assert digests[0][0] != digests[2][0]
    assert digests[0][1] != digests[2][1]


def test_the_matrix_is_what_offline_evaluation_of_every_stored_version_gives(
    client: Client, service: Service, grower: Grower, tmp_path: Path
) -> None:
    steps = [("anise", "basil"), ("chive", "dill"), ("fennel", "ginger"), ("hyssop", "juniper"), ("lovage", "mint")]
    for labels in steps:
        grower.learn(*labels)
    metrics = client.metrics(grower.name)
    assert metrics["versions"] == [1, 2, 3, 4, 5]
    matrices = {"tag": metrics["tag"]["matrix"], "taw": metrics["taw"]["matrix"]}
    for matrix in matrices.values():
        assert [len(row) for row in matrix] == [1, 2, 3, 4, 5]

    held_out = held_out_images(service, grower.name)
    for number in metrics["versions"]:
        client.download(grower.name, number, folder := tmp_path / str(number))
        version = load_version(folder)
        for form, matrix in matrices.items():
            offline = [accuracy(version, held_out[task], aware=form == "taw") for task in range(number)]
            assert matrix[number - 1] == pytest.approx(offline, abs=1e-12)


def held_out_images(service: Service, model_name: str) -> list[list[tuple[str, bytes]]]:
    """By task: label and file of each evaluation image, straight from storage."""
    settings = Settings(home=service.home)
    database, blobs = Database(settings.database), open_blobs(settings.blobs)
    with database.read() as connection:
        model = models.get(connection, model_name)
        found = []
        for version in versions.lineage(connection, model, model.head):
            batch_id = increments.get(connection, version.increment_id).batch
            tests = images.of_batch(connection, batch_id, split=Split.TEST)
            found.append([(image.label, original(image, database=database, blobs=blobs)) for image in tests])
    database.close()
    return found


def accuracy(version: LoadedVersion, held_out: list[tuple[str, bytes]], *, aware: bool) -> float:
    """Share of files whose best label, among all or among its task's, is right."""
    probabilities = version.probabilities([data for _, data in held_out])
    hits = 0
    for (label, _), row in zip(held_out, probabilities, strict=True):
        task = next(task for task in version.tasks if label in task)
        candidates = task if aware else version.labels
        scores = torch.stack([row[version.labels.index(candidate)] for candidate in candidates])
        hits += candidates[int(scores.argmax())] == label
    return hits / len(held_out)


# Ends with an error as soon as anything but these is imported: `trainer/networks` is all that a folder needs.
LONELY = """
import sys
class Only:
    allowed = {"torch", "torchvision", "PIL", "safetensors", "trainer", "torchgen", "functorch"}
    needed_by_torch = {name.partition(".")[0] for name in %r}
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in self.allowed or top in self.needed_by_torch or top.startswith("_"):
            return None
        raise ModuleNotFoundError(f"{name} is not part of what a version needs")
sys.meta_path.insert(0, Only())
import json, pathlib
from trainer.networks import load_version
version = load_version(pathlib.Path(sys.argv[1]))
files = [path.read_bytes() for path in sorted(pathlib.Path(sys.argv[2]).iterdir())]
print(json.dumps(version.top_k(version.probabilities(files), 3)))
"""
NEEDED_BY_TORCH = (
    "typing_extensions",
    "sympy",
    "mpmath",
    "networkx",
    "jinja2",
    "fsspec",
    "filelock",
    "numpy",
    "setuptools",
    "packaging",
    "triton",
)


def test_a_folder_and_the_networks_package_are_enough_to_predict(
    client: Client, grower: Grower, tmp_path: Path
) -> None:
    grower.learn("anise", "basil")
    grower.learn("chive", "dill")
    client.download(grower.name, 2, folder := tmp_path / "version")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, data in enumerate(unseen("anise", 3) + unseen("dill", 3)):
        (pictures / f"{number}.png").write_bytes(data)
    package = tmp_path / "lonely" / "trainer"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "networks").symlink_to(Path(__file__).parents[2] / "trainer" / "networks")
    script = tmp_path / "lonely" / "predict.py"
    script.write_text(LONELY % (NEEDED_BY_TORCH,))
    command = [sys.executable, "-P", str(script), str(folder), str(pictures)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(package.parent)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    alone = json.loads(done.stdout)
    answered = client.predict(grower.name, sorted(pictures.iterdir()), top_k=3, version=2)["predictions"]
    assert [[label for label, _ in one] for one in alone] == [[r["label"] for r in one] for one in answered]
    for one, other in zip(alone, answered, strict=True):
        assert [p for _, p in one] == pytest.approx([ranked["probability"] for ranked in other], abs=1e-5)


def test_a_version_says_what_its_files_are(client: Client, service: Service, grower: Grower) -> None:
    grower.learn("anise", "basil")
    version = client.version(grower.name, 1)
    for name, file in version["files"].items():
        data = httpx.get(f"{service.url}/v1/models/{grower.name}/versions/1/files/{name}").content
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (file["sha256"], file["bytes"])
    manifest = httpx.get(f"{service.url}/v1/models/{grower.name}/versions/1/files/version.json").json()
    assert manifest["files"]["weights.safetensors"]["sha256"] == version["files"]["weights.safetensors"]["sha256"]
    assert manifest["metrics"]["tag"] == client.version_metrics(grower.name, 1)["tag"]
    assert (manifest["version"], manifest["parent"], manifest["data_digest"]) == (1, None, version["data_digest"])


def test_the_executable_of_a_version_computes_what_its_network_does(
    client: Client, grower: Grower, tmp_path: Path
) -> None:
    grower.learn("anise", "basil")
    grower.learn("chive", "dill")
    client.download(grower.name, 2, folder := tmp_path / "version")
    names = ["evaluations.npz", "network.onnx", "version.json", "weights.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == names
    version = load_version(folder)
    record = version.manifest["executable"]
    assert record["largest_difference"] < 1e-4
    assert (record["exporter"], record["images"]) == (
        "trace",
        sum(n or 0 for n in client.version_metrics(grower.name, 2)["test_images"]),
    )
    shown = torch.stack(
        [pixels(decode(data, channels=3, image_size=SIZE), SIZE) for data in unseen("anise", 3) + unseen("dill", 3)]
    )
    session = open_session((folder / "network.onnx").read_bytes(), threads=1)
    (computed,) = session.run(["probabilities"], {"pixels": shown.numpy()})
    assert computed == pytest.approx(version.probabilities_of(shown).numpy(), abs=1e-5)
