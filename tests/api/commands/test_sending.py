"""What `accrete push` says of a folder before it sends anything, and what it then sends."""

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from api.commands.commandline import app
from tests.api.servers import ScriptedServer, answer, api_without_worker, scripted_servers

QUEUED = {"id": "7", "status": "queued"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Splits by another name, and one of everything that people's folders hold beside images."""
    root = tmp_path / "images"
    for side in ("train", "valid"):
        for label in ("cat", "dog"):
            for number in range(3 if side == "train" else 1):
                put(root / side / label / f"{number}.png")
    put(
        root / "README.md", root / "train" / ".DS_Store", root / ".git" / "config", root / "train" / "cat" / "scan.tiff"
    )
    put(Path(os.fsdecode(os.fsencode(root / "train" / "dog") + b"/h\xfcndin.png")))
    (root / "train" / "cat" / "gone.png").symlink_to(tmp_path / "gone")
    (root / "train" / "emu").mkdir()
    return root


@pytest.fixture
def api_url(tmp_path: Path) -> Iterator[str]:
    """The real API, without a worker."""
    with api_without_worker(tmp_path / "home") as url:
        yield url


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"image")


def push(*arguments: str | Path, url: str = "http://127.0.0.1:9") -> Result:
    """Push to a service."""
    return CliRunner().invoke(app, ["push", "m", *map(str, arguments)], env={"ACCRETE_URL": url})


def test_a_dry_run_tells_what_the_service_would_make_of_a_folder(folder: Path) -> None:
    report = json.loads(push(folder, "--dry-run", "--json").stdout)
    assert report["images"] == 9
    assert report["bytes"] == 45
    assert report["classes"] == [{"label": "cat", "train": 3, "test": 1}, {"label": "dog", "train": 4, "test": 1}]
    assert [group["files"] for group in report["rejects"]] == [["train/cat/scan.tiff"]]
    ignored = {name: group["reason"] for group in report["ignored"] for name in group["files"]}
    assert set(ignored) == {"README.md", "emu/"}
    unusable = {name: group["reason"] for group in report["unusable"] for name in group["files"]}
    assert set(unusable) == {".git", "train/.DS_Store", "train/cat/gone.png"}
    assert any("hündin" in note for note in report["notes"])
    assert any("evaluation" in note for note in report["notes"])


def test_a_dry_run_as_text_names_all_of_it(folder: Path) -> None:
    told = push(folder, "--dry-run")
    assert told.exit_code == 0
    for word in (
        "cat",
        "dog",
        "scan.tiff",
        "README.md",
        "emu/",
        ".git",
        ".DS_Store",
        "gone.png",
        "hündin",
        "nothing sent",
    ):
        assert word in told.stdout


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Takes one increment."""
    with scripted_servers() as start:
        yield start(answer(202, QUEUED))


def test_what_is_not_sent_is_told_before_the_upload_and_what_is_worth_it_is_sent(folder: Path, api_url: str) -> None:
    pushed = push(folder, "--create", "--no-wait", "--json", url=api_url)
    assert pushed.exit_code == 0, pushed.output
    summary, *warnings = pushed.stderr.splitlines()
    assert summary == "9 images of 2 classes, 0.0 kB: cat 3 + 1 to evaluate, dog 4 + 1 to evaluate"
    assert all(line.startswith("warning: ") for line in warnings)
    for name in ("scan.tiff", "README.md", "emu/", ".git", ".DS_Store", "gone.png", "hündin"):
        assert name in "".join(warnings)
    increment = json.loads(pushed.stdout)
    batch = CliRunner().invoke(app, ["batches", "show", increment["batch_id"], "--json"], env={"ACCRETE_URL": api_url})
    assert json.loads(batch.stdout)["images"] == 9
    assert [one["file"] for one in json.loads(batch.stdout)["rejects"]] == ["train/cat/scan.tiff"]


def test_an_archive_is_told_by_the_same_rules(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "batch.zip", "w") as archive:
        for name in ("cat/1.png", "cat/2.png", "dog/1.png", "notes.txt"):
            archive.writestr(name, b"image")
    report = json.loads(push(tmp_path / "batch.zip", "--dry-run", "--json").stdout)
    assert report["classes"] == [{"label": "cat", "train": 2, "test": 0}, {"label": "dog", "train": 1, "test": 0}]
    assert report["ignored"][0]["files"] == ["notes.txt"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["images/1.png", "labels/1.txt"], "without class folders"),
        (["1.png", "2.png"], "no image in a class folder"),
        (["train/1.png", "train/2.png"], "directly in train/"),
        (["train/cat/1.png", "test/dog/1.png"], "no images under train/"),
        (["cat/a\tb.png"], "control characters"),
    ],
)
def test_what_the_service_would_refuse_is_refused_before_the_upload(
    names: list[str], words: str, tmp_path: Path
) -> None:
    put(*(tmp_path / "images" / name for name in names))
    refused = push(tmp_path / "images", "--create")  # to nobody: had it been asked, it would be unreachable
    assert refused.exit_code == 1
    assert words in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_file_that_vanishes_while_others_are_sent_is_told(folder: Path, server, monkeypatch) -> None:
    from api.client.client import Client

    original = Client.start_increment

    def late(self: Client, *arguments: object, **options: object) -> object:
        (folder / "train" / "dog" / "1.png").unlink()
        return original(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Client, "start_increment", late)
    pushed = push(folder, "--no-wait", url=server.url)
    assert pushed.exit_code == 0
    assert "train/dog/1.png not sent: cannot be read: No such file or directory" in pushed.stderr


@pytest.mark.parametrize("arguments", [[], ["somewhere", "--batch", "1"], ["--batch", "1", "--dry-run"]])
def test_a_push_has_one_source(arguments: list[str]) -> None:
    refused = push(*arguments)
    assert refused.exit_code == 1
    assert "--batch" in refused.stderr or "--dry-run" in refused.stderr
