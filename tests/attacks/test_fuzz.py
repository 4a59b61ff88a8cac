"""Damaged archives, images and tensors by the thousand: refused or read, without a crash, a hang or endless memory.

`make fuzz` tries a hundred thousand of each.
"""

import gzip
import io
import json
import os
import random
import resource
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from api.bodies import tensors
from storage.archives.reading import ArchiveLimits, read, scan
from storage.errors import AccreteError
from tests.storage.packing import PACKERS
from trainer.networks.pictures import ImageRejected, decode

INPUTS = int(os.environ.get("FUZZ_INPUTS", "5000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
SECONDS = 1.0  # of the processor, for one input
GROWTH = 256 << 20  # bytes of memory over all inputs
LIMITS = ArchiveLimits(members=1000, unpacked_bytes=1 << 20, image_bytes=1 << 16, classes=100)
LENGTH = tensors.HEADER.lower()
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The same with some damage: bits, runs, numbers, places swapped, parts left out, doubled, or of nothing."""
    damaged = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        at = chance.randrange(len(damaged) + 1)
        span = chance.choice((1, 2, 4, 8, 64, 512))
        match chance.randrange(7):
            case 0 if at < len(damaged):
                damaged[at] ^= 1 << chance.randrange(8)
            case 1:
                damaged[at : at + span] = chance.randbytes(span)
            case 2:
                width = chance.choice((1, 2, 4))
                number = chance.choice(NUMBERS) & (256**width - 1)
                damaged[at : at + width] = number.to_bytes(width, chance.choice(("little", "big")))
            case 3:
                del damaged[at : at + span]
            case 4:
                damaged[at:at] = damaged[at : at + span]
            case 5:
                damaged[at:at] = chance.choice((bytes(span), b"PK\1\2", b"PK\3\4", b"PK\5\6", b"\xff\xd8", b"IDAT"))
            case _:
                del damaged[at + (len(damaged) - at) // 2 :]
        if not damaged:
            damaged = bytearray(data[: chance.randrange(1, len(data))])
    return bytes(damaged)


def picture(kind: str, mode: str = "RGB", **options: object) -> bytes:
    noise = random.Random(kind + mode).randbytes(24 * 24 * len(Image.new(mode, (1, 1)).getbands()))
    buffer = io.BytesIO()
    Image.frombytes(mode, (24, 24), noise).save(buffer, kind, **options)
    return buffer.getvalue()


PICTURES = [
    picture("PNG"),
    picture("PNG", "RGBA"),
    picture("PNG", "L"),
    picture("JPEG"),
    picture("JPEG", "CMYK"),
    picture("JPEG", progressive=True),
    picture("GIF", "L"),
    picture("BMP"),
    picture("WEBP"),
    picture("WEBP", lossless=True),
]
FILES = {f"{label}/{n}.png": picture("PNG", "L") for label in ("a", "b") for n in range(3)} | {"notes.txt": b"x" * 300}
ARCHIVES = [pack(FILES) for pack in PACKERS.values()]


def fuzzed(seeds: list[bytes], attempt: Callable[[bytes], str]) -> Counter[str]:
    """How many inputs ended in which way; fails at one that takes too long, and where memory grows without bounds."""
    chance = random.Random(SEED)
    endings: Counter[str] = Counter()
    before = _peak()
    for number in range(INPUTS):
        data = mutated(chance.choice(seeds), chance)
        began = time.process_time()
        endings[attempt(data)] += 1
        assert time.process_time() - began < SECONDS, (number, data[:64])
    assert _peak() - before < GROWTH
    return endings


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.timeout(3600)
def test_no_archive_is_too_much(tmp_path: Path) -> None:
    path = tmp_path / "archive"

    def attempt(data: bytes) -> str:
        path.write_bytes(data)
        try:
            index = scan(path, limits=LIMITS)
            for member, content in read(path, index):
                assert len(content.data) <= LIMITS.image_bytes, member
        except AccreteError as refused:
            return type(refused).__name__ if refused.detail else "refused without a reason"
        return "read"

    endings = fuzzed(ARCHIVES, attempt)
    assert "refused without a reason" not in endings
    assert endings["ArchiveUnreadable"] > INPUTS / 20
    assert endings["read"] > INPUTS / 100


@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("image_size", [None, 4])
def test_no_picture_is_too_much(image_size: int | None) -> None:
    def attempt(data: bytes) -> str:
        try:
            image = decode(data, channels=3, image_size=image_size, max_pixels=1_000_000)
        except ImageRejected as refused:
            return "refused" if refused.reason else "refused without a reason"
        assert image.mode == "RGB"
        assert image.width * image.height <= 1_000_000
        assert image_size is None or image.size == (image_size, image_size)
        return "read"

    endings = fuzzed(PICTURES, attempt)
    assert "refused without a reason" not in endings
    assert endings["refused"] > INPUTS / 20
    assert endings["read"] > INPUTS / 100


def inferences() -> list[tuple[bytes, dict[str, str]]]:
    """Requests of the Open Inference Protocol: in JSON and in binary, plain and compressed."""
    shape = [2, 3, 4, 4]
    numbers = [n / 96 for n in range(96)]
    given = {"name": "image", "shape": shape, "datatype": "FP32"}
    asked = {"id": "7", "outputs": [{"name": "probabilities", "parameters": {"classification": 3}}]}
    in_json = json.dumps(asked | {"inputs": [given | {"data": numbers}]}).encode()
    requests: list[tuple[bytes, dict[str, str]]] = [(in_json, {})]
    for kind, tensor, dimensions in (
        ("FP32", struct.pack("<96f", *numbers), shape),
        ("BYTES", b"".join(struct.pack("<I", len(one)) + one for one in PICTURES[:2]), [2]),
    ):
        size = {"binary_data_size": len(tensor)}
        described = given | {"datatype": kind, "shape": dimensions, "parameters": size}
        text = json.dumps(asked | {"inputs": [described]}).encode()
        requests.append((text + tensor, {LENGTH: str(len(text))}))
    return [
        (pack(body), headers | coding)
        for body, headers in requests
        for pack, coding in (
            (bytes, {}),
            (zlib.compress, {"content-encoding": "deflate"}),
            (gzip.compress, {"content-encoding": "gzip"}),
        )
    ]


@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")
def test_no_tensor_is_too_much() -> None:
    chance = random.Random(SEED)
    requests = inferences()

    def attempt(data: bytes, headers: dict[str, str]) -> str:
        try:
            question = tensors.read(data, headers, max_bytes=1 << 20, max_json_bytes=1 << 20)
        except AccreteError as refused:
            return type(refused).__name__ if refused.detail else "refused without a reason"
        assert question.files is not None or (question.pixels is not None and bool(np.isfinite(question.pixels).all()))
        return "read"

    endings: Counter[str] = Counter()
    before = _peak()
    for number in range(INPUTS):
        data, headers = chance.choice(requests)
        if chance.random() < 0.3 and LENGTH in headers:
            headers = headers | {LENGTH: str(chance.choice((*NUMBERS, -1, "x", 10**30)))}
        elif chance.random() < 0.9:
            data = mutated(data, chance)
        began = time.process_time()
        endings[attempt(data, headers)] += 1
        assert time.process_time() - began < SECONDS, (number, data[:64])
    assert _peak() - before < GROWTH
    assert "refused without a reason" not in endings
    assert endings["Invalid"] > INPUTS / 20
    assert endings["read"] > INPUTS / 100
