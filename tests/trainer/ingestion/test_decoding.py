"""Decoding in processes of their own: what they find, what they raise, and that they end with whoever wanted it."""

import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from itertools import accumulate
from pathlib import Path

import psutil
import pytest

from tests.patterns import SIZE, picture
from trainer.ingestion import decoding
from trainer.ingestion.decoding import DecodedImage, DecodingOptions, EncodedImages, decoded, examine
from trainer.ingestion.rows import Rows, put_at
from trainer.networks.pictures import Form

FORM = Form(channels=3, image_size=SIZE)
PICTURES = [picture("basil", number) for number in range(12)]


def groups(folder: Path, files: list[bytes], *, each: int = 3) -> list[EncodedImages]:
    """Files one after another behind some other bytes, so many a group."""
    path = folder / "files"
    path.write_bytes(b"before" + b"".join(files))
    sizes = [len(data) for data in files]
    offsets = [6, *(6 + end for end in accumulate(sizes))]
    return [
        EncodedImages(
            path, tuple(offsets[first : min(first + each, len(files))]), tuple(sizes[first : first + each]), first
        )
        for first in range(0, len(files), each)
    ]


@pytest.mark.parametrize("processes", [1, 3])
def test_findings_and_rows_come_as_the_files_do(tmp_path, processes):
    files = [*PICTURES[:4], b"no image", *PICTURES[4:], b""]
    with Rows(tmp_path, row_bytes=FORM.row_bytes) as rows:
        options = DecodingOptions(rows.path, FORM, max_pixels=SIZE * SIZE)
        found = [one for part in decoded(groups(tmp_path, files), options, processes=processes) for one in part]
        assert [finding.fault is None for finding in found] == [data in PICTURES for data in files]
        for number, data in enumerate(files):
            expected = FORM.row(data, max_pixels=SIZE * SIZE) if data in PICTURES else bytes(FORM.row_bytes)
            assert rows.get(number) == expected
    assert found[-1] == DecodedImage(
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "the file is empty"
    )


@pytest.mark.parametrize("processes", [1, 2])
def test_what_a_process_raises_is_raised_here(tmp_path, processes):
    orders = groups(tmp_path, PICTURES)
    with Rows(tmp_path, row_bytes=FORM.row_bytes) as rows:
        options = DecodingOptions(rows.path, FORM, max_pixels=SIZE * SIZE)
        (tmp_path / "files").write_bytes(b"cut off")
        with pytest.raises(EOFError, match="ends before byte"):
            list(decoded(orders, options, processes=processes))


def children_that_decode() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def test_a_process_that_is_killed_is_an_error_and_leaves_none_behind(tmp_path):
    with Rows(tmp_path, row_bytes=FORM.row_bytes) as rows:
        options = DecodingOptions(rows.path, FORM, max_pixels=SIZE * SIZE)
        findings = decoded(groups(tmp_path, PICTURES * 20, each=1), options, processes=2)
        next(findings)
        for child in children_that_decode():
            child.kill()
        with pytest.raises(BrokenProcessPool):
            list(findings)
    assert children_that_decode() == []


def test_few_parcels_are_asked_for_ahead(tmp_path):
    asked = 0

    def counted():
        nonlocal asked
        for group in groups(tmp_path, PICTURES * 20, each=1):
            asked += 1
            yield group

    with Rows(tmp_path, row_bytes=FORM.row_bytes) as rows:
        findings = decoded(counted(), DecodingOptions(rows.path, FORM, max_pixels=SIZE * SIZE), processes=2)
        for done, _ in enumerate(findings, start=1):
            assert asked <= done + 2 * decoding._AHEAD


WAITING = """
import sys, time
from pathlib import Path
from trainer.ingestion.decoding import DecodingOptions, EncodedImages, decoded
from trainer.networks.pictures import Form
from trainer.ingestion.rows import Rows

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    picture = (folder / "picture").read_bytes()
    group = EncodedImages(folder / "picture", offsets=(0,), sizes=(len(picture),), first=0)
    with Rows(folder, row_bytes=3072) as rows:
        found = decoded(iter(lambda: group, None), DecodingOptions(rows.path, Form(3, 32), 10_000), processes=2)
        next(found)
        print("decoding", flush=True)
        time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_processes_end_with_the_one_that_wanted_the_images(tmp_path, how):
    (tmp_path / "picture").write_bytes(PICTURES[0])
    script = tmp_path / "waiting.py"
    script.write_text(WAITING)
    environment = os.environ | {"PYTHONPATH": str(Path(decoding.__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"decoding\n"
        started = psutil.Process(process.pid).children(recursive=True)
        assert sum("spawn_main" in " ".join(child.cmdline()) for child in started) == 2
        process.send_signal(how)
        process.wait()
        deadline = time.monotonic() + 60
        while any(child.is_running() for child in started):
            assert time.monotonic() < deadline, started
            time.sleep(0.02)


def test_a_process_that_decodes_never_loads_torch():
    program = "import trainer.ingestion.decoding, trainer.process.__main__, sys; print('torch' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout == "False\n"


def limit_files() -> None:
    """The kernel takes part of a write that crosses the limit, as it does on a disk that fills up."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))


SHORT = """
import os, sys
from trainer.ingestion.rows import put_at
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
put_at(descriptor, b"sixteen bytes...", 0)
"""


def test_what_does_not_fit_on_the_disk_is_an_error_and_no_short_row(tmp_path):
    tried = subprocess.run(
        [sys.executable, "-c", SHORT, str(tmp_path / "rows")],
        preexec_fn=limit_files,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tried.returncode == 1
    assert "10 of 16 bytes could be written to the scratch folder: its disk is full" in tried.stderr


def test_rows_can_be_put_from_elsewhere(tmp_path):
    with Rows(tmp_path, row_bytes=4) as rows:
        with rows.path.open("r+b") as file:
            put_at(file.fileno(), b"abcdefgh", 4)
        assert (rows.get(1), rows.get(2)) == (b"abcd", b"efgh")


def test_a_parcel_of_large_files_is_one_file(tmp_path):
    (first, second) = groups(tmp_path, PICTURES[:2], each=1)
    with Rows(tmp_path, row_bytes=FORM.row_bytes) as rows:
        options = DecodingOptions(rows.path, FORM, max_pixels=SIZE * SIZE)
        assert len(examine(first, options)) == len(examine(second, options)) == 1
