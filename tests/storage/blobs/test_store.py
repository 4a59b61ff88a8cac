"""One set of tests for every blob store, then what only a directory has to promise."""

import base64
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.blobs.directory import DirectoryBlobs
from storage.blobs.opening import open_blobs
from storage.blobs.s3 import PART, S3Blobs
from storage.blobs.store import BlobStore
from storage.errors import BlobDamaged, BlobMissing

ABSENT = hashlib.sha256(b"never stored").hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def damage(blobs: BlobStore, digest: str, data: bytes) -> None:
    """Change stored bytes behind the store's back."""
    if isinstance(blobs, S3Blobs):
        blobs._client.put_object(Bucket=blobs.bucket, Key=blobs._key(digest), Body=data)
    else:
        assert isinstance(blobs, DirectoryBlobs)
        blobs._path(digest).write_bytes(data)


def test_bytes_come_back_under_their_sha256(blobs):
    for data in (b"", b"\x00", bytes(range(256)) * 100):
        assert blobs.put(data) == sha256(data)
        assert blobs.get(sha256(data)) == data


def test_storing_again_changes_nothing(blobs):
    assert blobs.put(b"leaf") == blobs.put(b"leaf")
    assert list(blobs.digests()) == [sha256(b"leaf")]


def test_digests_are_those_put_and_not_deleted(blobs):
    stored = {blobs.put(str(number).encode()) for number in range(40)}
    for digest in sorted(stored)[:15]:
        blobs.delete(digest)
        blobs.delete(digest)
    kept = set(sorted(stored)[15:])
    assert set(blobs.digests()) == kept
    assert {digest for digest in stored if blobs.exists(digest)} == kept


def test_a_second_object_at_the_same_place_sees_the_same_blobs(blobs, blob_url):
    digest = blobs.put(b"shared")
    assert open_blobs(blob_url).get(digest) == b"shared"


@pytest.mark.parametrize("told", [False, True])
def test_a_stored_file_is_taken_over(blobs, tmp_path, told):
    data = random.Random(1).randbytes(2 * PART + 12345)  # three parts for S3
    source = written(tmp_path / "archive.zip", data)
    assert blobs.put_file(source, sha256=sha256(data) if told else None) == sha256(data)
    assert not source.exists()
    blobs.fetch(sha256(data), tmp_path / "copy.zip")
    assert (tmp_path / "copy.zip").read_bytes() == data


def test_a_file_that_is_stored_already_is_taken_over_too(blobs, tmp_path):
    digest = blobs.put(b"known")
    source = written(tmp_path / "again", b"known")
    assert blobs.put_file(source) == digest
    assert not source.exists()
    assert blobs.get(digest) == b"known"


def test_what_is_not_there_is_missing(blobs, tmp_path):
    assert not blobs.exists(ABSENT)
    with pytest.raises(BlobMissing, match=ABSENT):
        blobs.get(ABSENT)
    with pytest.raises(BlobMissing, match=ABSENT):
        blobs.fetch(ABSENT, tmp_path / "target")
    assert list(tmp_path.glob("*target*")) == []


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b"X" + data[1:]])
def test_damaged_bytes_are_never_handed_out(blobs, tmp_path, change):
    digest = blobs.put(b"weights of a network")
    damage(blobs, digest, change(b"weights of a network"))
    target = written(tmp_path / "target", b"what was there before")
    with pytest.raises(BlobDamaged, match=digest):
        blobs.get(digest)
    with pytest.raises(BlobDamaged, match=digest):
        blobs.fetch(digest, target)
    assert target.read_bytes() == b"what was there before"
    assert list(tmp_path.glob("*target*")) == [target]


@pytest.mark.parametrize("with_file", [False, True])
def test_storing_again_repairs_damage(blobs, tmp_path, with_file):
    digest = blobs.put(b"weights")
    damage(blobs, digest, b"\0" * 7)  # what a power cut can leave
    if with_file:
        blobs.put_file(written(tmp_path / "source", b"weights"))
    else:
        blobs.put(b"weights")
    assert blobs.get(digest) == b"weights"


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n", "a" * 65, "é" * 64])
def test_names_that_are_no_digest_are_refused(blobs, tmp_path, name):
    source = written(tmp_path / "source", b"data")
    for call in (
        lambda: blobs.get(name),
        lambda: blobs.fetch(name, tmp_path / "target"),
        lambda: blobs.exists(name),
        lambda: blobs.delete(name),
        lambda: blobs.put_file(source, sha256=name),
    ):
        with pytest.raises(ValueError, match="64 lower-case hexadecimal digits"):
            call()
    assert source.exists()


def test_many_threads_may_store_the_same_bytes(blobs):
    contents = [b"same", b"same", *(str(number).encode() for number in range(30))] * 3
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(blobs.put, contents)) == [sha256(data) for data in contents]
    blobs.sync()
    assert all(blobs.get(sha256(data)) == data for data in contents)


@pytest.mark.parametrize(
    "url", ["http://host/bucket", "s3:///prefix", "s3://bucket?endpoint=http://x", "file:///tmp/blobs"]
)
def test_locations_that_name_no_store_are_refused(url):
    with pytest.raises(ValueError, match="blob store"):
        open_blobs(url)


@pytest.mark.parametrize("blob_url", ["s3"], indirect=True)
def test_prefixes_of_one_bucket_are_apart(blob_url, blobs):
    digest = blobs.put(b"here")
    elsewhere = open_blobs(blob_url.replace("/accrete/images?", "/accrete/other?"))
    assert not elsewhere.exists(digest)
    assert list(elsewhere.digests()) == []


# A directory alone


@pytest.mark.parametrize("blob_url", ["s3"], indirect=True)
def test_an_s3_store_is_told_the_digest_to_compare_what_arrives_with(blobs, tmp_path):
    assert isinstance(blobs, S3Blobs)
    told: list[str] = []
    blobs._client.meta.events.register(
        "before-send.s3.PutObject", lambda request, **_: told.append(request.headers["x-amz-checksum-sha256"].decode())
    )
    digests = [blobs.put(b"bytes"), blobs.put_file(written(tmp_path / "file", b"a file"))]
    assert told == [base64.b64encode(bytes.fromhex(digest)).decode() for digest in digests]


def test_a_file_from_another_device_is_copied(tmp_path):
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    source = written(memory / f"accrete-{os.getpid()}", b"from afar")
    blobs = DirectoryBlobs(tmp_path)
    assert blobs.get(blobs.put_file(source)) == b"from afar"
    assert not source.exists()


def test_a_killed_writer_leaves_only_whole_blobs(tmp_path):
    program = (
        "import os, sys; from pathlib import Path; from storage.blobs.directory import DirectoryBlobs\n"
        "blobs = DirectoryBlobs(Path(sys.argv[1])); print('ready', flush=True)\n"
        "while True: blobs.put(os.urandom(200_000))"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        blobs = DirectoryBlobs(tmp_path)
        deadline = time.monotonic() + 60
        while len(list(blobs.digests())) < 10:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        writer.send_signal(signal.SIGKILL)
    stored = list(blobs.digests())
    assert stored
    assert all(sha256(blobs.get(digest)) == digest for digest in stored)


def test_no_room_for_a_blob_leaves_nothing(tmp_path):
    program = (
        "import resource, sys; from pathlib import Path; from storage.blobs.directory import DirectoryBlobs\n"
        "blobs = DirectoryBlobs(Path(sys.argv[1])); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "blobs.put(b'small')\n"
        "try: blobs.put(b'large' * 1000)\n"
        "except OSError: sys.exit(7)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 7
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [sha256(b"small")]


def test_abandoned_files_are_cleared_and_young_ones_left(tmp_path):
    DirectoryBlobs(tmp_path)
    old, young = (written(tmp_path / "unfinished" / name, b"half a blob") for name in ("old", "young"))
    long_ago = time.time() - 2 * DirectoryBlobs.ABANDONED
    os.utime(old, (long_ago, long_ago))
    assert list(DirectoryBlobs(tmp_path).digests()) == []
    assert not old.exists()
    assert young.exists()


@pytest.fixture
def flushed(monkeypatch) -> list[Path]:
    """Every path that was written through to the disk."""
    paths: list[Path] = []
    really = os.fsync

    def fsync(descriptor: int) -> None:
        really(descriptor)
        paths.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(os, "fsync", fsync)
    return paths


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to see what was flushed")
def test_sync_flushes_every_blob_before_it_and_the_folders_that_name_them(tmp_path, flushed):
    blobs = DirectoryBlobs(tmp_path / "blobs")
    digests = [blobs.put(b"one"), blobs.put(b"two"), blobs.put_file(written(tmp_path / "file", b"three"))]
    assert flushed == []
    blobs.sync()
    files = [blobs.root / digest[:2] / digest for digest in digests]
    assert set(flushed) == {*files, *(file.parent for file in files), blobs.root}
    assert max(map(flushed.index, files)) < min(flushed.index(file.parent) for file in files)
    flushed.clear()
    blobs.sync()
    assert flushed == []
    assert DirectoryBlobs(blobs.root).put(b"one") == digests[0]  # stored by another, perhaps not yet flushed by it


def test_a_sync_that_failed_is_done_again(tmp_path, monkeypatch):
    blobs = DirectoryBlobs(tmp_path)
    digest = blobs.put(b"precious")

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output"):
            blobs.sync()
    synced: list[Path] = []
    monkeypatch.setattr("storage.blobs.directory.flush", synced.append)
    blobs.sync()
    assert blobs.root / digest[:2] / digest in synced


def test_three_thousand_small_blobs_are_durable_within_seconds(tmp_path):
    contents = [random.Random(number).randbytes(2000) for number in range(3000)]
    blobs = DirectoryBlobs(tmp_path)
    started = time.perf_counter()
    for data in contents:
        blobs.put(data)
    blobs.sync()
    assert time.perf_counter() - started < 100.0  # half a second on an idle machine with an SSD
