"""Folders as they are found on disks, on their way to the service."""

import io
import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from api.client.connection import CHUNK_BYTES, ClientError
from api.client.folders import DANGLING, LOOP, NOT_A_FILE, FoundFile, contents_of
from api.client.packing import Folder, sendable_names, source_of
from storage.archives.file_kinds import HIDDEN, SYSTEM

LATIN = b"caf\xe9.png"


def write(folder: Path, *names: str | bytes, content: bytes = b"image") -> Path:
    """Files in a folder, each of other bytes."""
    for name in names:
        path = Path(os.fsdecode(os.path.join(os.fsencode(folder), os.fsencode(name))))  # noqa: PTH118
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content + os.fsencode(name))
    return folder


def sent(source: Folder) -> dict[str, bytes]:
    """The members of the archive that is sent."""
    with zipfile.ZipFile(io.BytesIO(b"".join(source.chunks(None)))) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def folder_source(folder: Path) -> Folder:
    """What is sent for a folder."""
    source = source_of(folder)
    assert isinstance(source, Folder)
    return source


def test_names_that_are_no_utf8_are_sent_under_readable_ones(tmp_path: Path) -> None:
    write(tmp_path, b"cat/" + LATIN, "cat/café.png", b"\xfcber/1.png", "dog/1.png", b"dog/\x81.png", b"dog/\x8d.png")
    members = sent(folder_source(tmp_path))
    assert members["cat/café.png"] == b"imagecat/caf\xc3\xa9.png"
    assert members["cat/café (2).png"] == b"imagecat/" + LATIN
    assert members["über/1.png"] == b"image\xfcber/1.png"
    assert members["dog/\ufffd.png"] == b"imagedog/\x81.png"
    assert members["dog/\ufffd (2).png"] == b"imagedog/\x8d.png"
    assert len(members) == 6


def test_no_name_is_there_twice() -> None:
    name = os.fsdecode(LATIN)
    assert [sent for sent, _ in sendable_names([name, "x", name])] == ["café.png", "x", "café (2).png"]


def test_links_are_followed_and_what_is_no_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = write(tmp_path / "elsewhere", "1.png", "2.png")
    folder = write(tmp_path / "images", "cat/1.png")
    (folder / "cat" / "2.png").symlink_to(elsewhere / "1.png")
    (folder / "dog").symlink_to(elsewhere)
    (folder / "cat" / "all").symlink_to(folder)
    (folder / "cat" / "gone.png").symlink_to(tmp_path / "gone")
    (folder / "cat" / "round.png").symlink_to("round.png")
    os.mkfifo(folder / "cat" / "pipe.png")
    (folder / "bird").mkdir()
    write(folder, ".git/config", "cat/.hidden.png", "cat/Thumbs.db")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(folder)  # the whole path may be too long for a socket
        listener.bind("socket")
    contents = contents_of(folder)
    assert [file.name for file in contents.files] == ["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"]
    assert contents.folders == ["bird", "cat", "dog"]
    assert contents.unusable == [
        (".git", HIDDEN),
        ("cat/.hidden.png", HIDDEN),
        ("cat/Thumbs.db", SYSTEM),
        ("cat/all/", LOOP),
        ("cat/gone.png", DANGLING),
        ("cat/pipe.png", NOT_A_FILE),
        ("cat/round.png", DANGLING),
        ("socket", NOT_A_FILE),
    ]
    assert sent(folder_source(folder))["cat/2.png"] == b"image1.png"


def test_files_that_vanish_while_the_folder_is_sent_are_left_out_and_told(tmp_path: Path) -> None:
    source = folder_source(write(tmp_path, "cat/1.png", "cat/2.png", "dog/1.png"))
    (tmp_path / "cat" / "2.png").unlink()
    assert set(sent(source)) == {"cat/1.png", "dog/1.png"}
    assert source.vanished == [("cat/2.png", "cannot be read: No such file or directory")]


def test_of_a_file_that_grows_no_more_is_sent_than_there_was(tmp_path: Path) -> None:
    source = folder_source(write(tmp_path, "cat/1.png", "cat/2.png"))
    with (tmp_path / "cat" / "1.png").open("ab") as file:
        file.write(b"more")
    assert sent(source)["cat/1.png"] == b"imagecat/1.png"


def test_a_disk_that_fails_ends_the_upload_with_the_name_of_the_file() -> None:
    memory = FoundFile(Path("/proc/self/mem"), "cat/1.png", 1)  # address 0: an input/output error
    with pytest.raises(ClientError, match=r"/proc/self/mem broke off .*Input/output error; nothing was taken in"):
        sent(Folder([memory]))


def test_a_folder_can_be_sent_again_and_tells_how_far_it_is(tmp_path: Path) -> None:
    write(tmp_path, "cat/1.png", content=bytes(3 * CHUNK_BYTES))
    write(tmp_path, *(f"dog/{number}.png" for number in range(3000)))
    told: list[tuple[int, int]] = []
    source = folder_source(tmp_path)
    first = list(source.chunks(lambda *done: told.append(done)))
    assert b"".join(first) == b"".join(source.chunks(None))
    assert max(map(len, first[:-1])) < 2 * CHUNK_BYTES
    assert told[-1] == (len(b"".join(first)),) * 2
    assert all(done < total for done, total in told[:-1])
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert abs(told[0][1] - told[-1][1]) < 0.2 * told[-1][1]


def test_nothing_is_written_to_send_a_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "images", *(f"cat/{number}.png" for number in range(50)), content=bytes(10_000))
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); from pathlib import Path\n"
        "from api.client.packing import source_of; print(sum(map(len, source_of(Path(sys.argv[1])).chunks(None))))"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path / "nowhere"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, folder], env=environment, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 500_000


@pytest.mark.parametrize("name", ["missing", "empty", "file.png"])
def test_what_is_no_batch_is_refused_with_what_one_is(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path, "file.png")
    with pytest.raises(ClientError, match=r"class|archive \(.zip"):
        source_of(tmp_path / name)
