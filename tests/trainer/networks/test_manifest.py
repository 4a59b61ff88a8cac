"""The manifest of a version: read and checked without torch."""

import hashlib
import json
from typing import Any

import pytest

from trainer.networks.manifest import EXECUTABLE, MANIFEST, WEIGHTS, Manifest, read_manifest, write_manifest

RECORD: dict[str, Any] = {
    "parent": 3,
    "format": 1,
    "network": "resnet32",
    "image_size": 16,
    "channels": 1,
    "head": "cosine",
    "tasks": [["cat", "dög"], ["eel"]],
    "transform": {"image_size": 16, "channels": 1, "resize": "bilinear", "mean": [0.5], "std": [0.25]},
}
CONTENTS = {WEIGHTS: b"weights", EXECUTABLE: b"a graph"}


@pytest.fixture
def folder(tmp_path):
    for name, content in CONTENTS.items():
        (tmp_path / name).write_bytes(content)
    write_manifest(tmp_path, RECORD, files=CONTENTS)
    return tmp_path


def test_what_was_written_is_read(folder):
    files = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
    sizes = {name: {"sha256": files[name], "bytes": len(content)} for name, content in CONTENTS.items()}
    found = read_manifest(folder)
    assert found == Manifest(
        network="resnet32",
        channels=1,
        image_size=16,
        head="cosine",
        tasks=(("cat", "dög"), ("eel",)),
        transform=RECORD["transform"],
        files=files,
        record=RECORD | {"files": sizes},
    )
    assert found.labels == ("cat", "dög", "eel")


@pytest.mark.parametrize("name", [WEIGHTS, EXECUTABLE])
def test_every_listed_file_is_checked(folder, name):
    (folder / name).write_bytes(b"other")
    with pytest.raises(ValueError, match=f"{name} is damaged: SHA-256 [0-9a-f]{{64}}, expected [0-9a-f]{{64}}"):
        read_manifest(folder)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        read_manifest(folder)


def test_digests_that_are_known_are_compared_and_no_file_is_read(folder):
    known = {EXECUTABLE: hashlib.sha256(CONTENTS[EXECUTABLE]).hexdigest()}
    for name in CONTENTS:
        (folder / name).unlink()
    assert read_manifest(folder, known=known).files[EXECUTABLE] == known[EXECUTABLE]
    with pytest.raises(ValueError, match=f"{EXECUTABLE} is damaged: SHA-256 {'0' * 64}"):
        read_manifest(folder, known={EXECUTABLE: "0" * 64})


@pytest.mark.parametrize(("key", "changed"), [("format", 2), ("head", "prototype"), ("head", None)])
def test_a_later_release_s_manifest_is_refused(folder, key, changed):
    record = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(record | {key: changed}))
    with pytest.raises(ValueError, match=f"{changed!r}.*this release reads format 1 with head 'linear' or 'cosine'"):
        read_manifest(folder)


def test_a_record_that_is_no_json_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_manifest(tmp_path, RECORD | {"loss": float("nan")}, files=())
    assert not (tmp_path / MANIFEST).exists()
