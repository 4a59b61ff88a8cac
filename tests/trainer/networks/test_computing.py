"""The program that computes for a process without torch; its answers are tested with the process that asks it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.networks import versions
from trainer.networks.computing import Computer
from trainer.networks.frames import LENGTH, encode

ROOT = Path(__file__).parents[3]
NOISY = """
import os, sys
from trainer.networks import computing

class Noisy(computing.Computer):
    def answer(self, order, data):
        print("noise", flush=True)
        os.write(1, b"noise")
        return {"asked": order["order"]}, data

computing.Computer = Noisy
sys.exit(computing.main())
"""


def frames(said: bytes) -> list[tuple[dict[str, Any], bytes]]:
    found = []
    while said:
        (length,) = LENGTH.unpack(said[: LENGTH.size])
        header = json.loads(said[LENGTH.size : LENGTH.size + length])
        end = LENGTH.size + length + int(header.pop("bytes"))
        found.append((header, said[LENGTH.size + length : end]))
        said = said[end:]
    return found


def test_whatever_is_printed_does_not_mix_with_the_answers():
    orders = encode({"order": "first"}, 3) + b"abc" + encode({"order": "second"})
    command = [sys.executable, "-c", NOISY, "cpu", "1"]
    expected: list[tuple[dict[str, Any], bytes]] = [
        ({"torch": str(torch.__version__)}, b""),
        ({"asked": "first"}, b"abc"),
        ({"asked": "second"}, b""),
    ]
    size = sum(len(encode(header, len(data)) + data) for header, data in expected)
    reading, writing = os.pipe()
    with subprocess.Popen(command, stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        os.write(writing, orders)
        assert frames(program.stdout.read(size)) == expected
        os.close(writing)
        assert program.stdout.read() == b""
        assert program.stderr.read().count(b"noise") == 4
    os.close(reading)
    assert program.returncode == 0


def test_a_gpu_that_computes_nothing_more_ends_the_process(monkeypatch):
    def fail(*_, **__):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(versions, "load_version", fail)
    with pytest.raises(torch.AcceleratorError):
        Computer("cpu").answer({"order": "load", "key": "a", "folder": "."}, bytearray())


@pytest.mark.parametrize(
    ("error", "text"), [(torch.OutOfMemoryError("all used"), "OutOfMemoryError: all used"), (ValueError("bad"), "bad")]
)
def test_any_other_error_is_an_answer(monkeypatch, error, text):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(versions, "load_version", fail)
    answer = Computer("cpu").answer({"order": "load", "key": "a", "folder": "."}, bytearray())
    assert answer == ({"error": text}, bytearray())


def test_an_unknown_order_is_an_answer():
    assert "error" in Computer("cpu").answer({"order": "dance"}, bytearray())[0]
