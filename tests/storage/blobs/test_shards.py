"""Packed copies: what is written is read, in both stores, and damage never passes for an image."""

import hashlib
from pathlib import Path
from random import Random

import pytest

from storage.blobs import shards
from storage.blobs.store import BlobStore
from storage.errors import BlobDamaged, BlobMissing

LENGTH = 48


def rows(count: int, length: int = LENGTH) -> list[bytes]:
    random = Random(count)
    return [random.randbytes(length) for _ in range(count)]


def stored(blobs: BlobStore, folder: Path, written: list[bytes], *, damage: int | None = None, cut: int = 0) -> str:
    """A shard of these rows; ``damage`` is where a byte is flipped, ``cut`` how many are missing at the end."""
    path = folder / "shard"
    shards.write(path, written, count=len(written), row_bytes=len(written[0]))
    data = bytearray(path.read_bytes())
    path.unlink()
    if damage is not None:
        data[damage] ^= 1
    return blobs.put(bytes(data[: len(data) - cut]))


@pytest.mark.parametrize("wanted", [[], [0], [9], [3, 1, 2], list(range(10)), [0, 2, 4, 5, 6, 9]])
def test_the_rows_asked_for_are_those_that_were_written(blobs, tmp_path, wanted):
    written = rows(10)
    digest = stored(blobs, tmp_path, written)
    found = list(shards.read(blobs, digest, wanted, row_bytes=LENGTH))
    assert [(number, bytes(row)) for number, row in found] == [(number, written[number]) for number in sorted(wanted)]


def test_rows_longer_than_one_reading_are_read_one_by_one(blobs, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "READ", 3 * LENGTH)
    written = rows(10)
    digest = stored(blobs, tmp_path, written)
    found = [bytes(row) for _, row in shards.read(blobs, digest, range(10), row_bytes=LENGTH)]
    assert found == written


def test_a_row_of_another_length_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="a row of 3 bytes instead of 2"):
        shards.write(tmp_path / "shard", [b"ab", b"abc"], count=2, row_bytes=2)


@pytest.mark.parametrize("row", range(4))
def test_one_flipped_bit_is_seen_in_its_row_and_the_others_are_still_good(blobs, tmp_path, row):
    written = rows(4)
    first = 16 + 4 * 4
    digest = stored(blobs, tmp_path, written, damage=first + row * LENGTH + 7)
    with pytest.raises(BlobDamaged, match=f"row {row} is not the one that was written"):
        list(shards.read(blobs, digest, [row], row_bytes=LENGTH))
    others = [number for number in range(4) if number != row]
    assert [bytes(found) for _, found in shards.read(blobs, digest, others, row_bytes=LENGTH)] == [
        written[number] for number in others
    ]


@pytest.mark.parametrize("byte", range(16 + 16))
def test_a_flipped_bit_before_the_rows_is_seen(blobs, tmp_path, byte):
    digest = stored(blobs, tmp_path, rows(4), damage=byte)
    with pytest.raises(BlobDamaged, match=digest):
        list(shards.read(blobs, digest, range(4), row_bytes=LENGTH))


@pytest.mark.parametrize("cut", [1, LENGTH, 4 * LENGTH, 4 * LENGTH + 5, 4 * LENGTH + 20])
def test_a_shard_that_is_cut_off_is_seen(blobs, tmp_path, cut):
    digest = stored(blobs, tmp_path, rows(4), cut=cut)
    with pytest.raises(BlobDamaged):
        list(shards.read(blobs, digest, range(4), row_bytes=LENGTH))


def test_what_is_no_shard_of_such_images_is_refused(blobs, tmp_path):
    digest = stored(blobs, tmp_path, rows(4))
    for wrong, row, length in ((blobs.put(b"GIF89a" * 100), 0, LENGTH), (digest, 0, LENGTH + 1), (digest, 4, LENGTH)):
        with pytest.raises(BlobDamaged, match=wrong):
            list(shards.read(blobs, wrong, [row], row_bytes=length))


def test_one_that_is_not_there_is_missing(blobs):
    with pytest.raises(BlobMissing):
        list(shards.read(blobs, hashlib.sha256(b"nowhere").hexdigest(), [0], row_bytes=LENGTH))


def test_a_shard_holds_no_more_than_its_bound_but_one_row_always():
    assert shards.rows_per_shard(3072) == shards.LARGEST // 3072
    assert shards.rows_per_shard(2 * shards.LARGEST) == 1
