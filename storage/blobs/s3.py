"""Blobs in an S3-compatible store, one object each: ``prefix/aa/aabb…``.

Credentials come the way boto3 finds them: environment, profile, or the machine's role.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from storage.blobs.store import CHUNK, DIGEST, arriving, checked_digest, damaged, file_digest, missing

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

PART = 16 << 20  # bytes of a part of a large upload; four are in memory at a time
CONNECTIONS = 32  # requests at once; the client may be shared by as many threads
ABSENT = frozenset({"404", "NoSuchKey", "NotFound"})


class S3Blobs:
    """Blobs as objects of a bucket; safe to use from several threads. See BlobStore for the meaning of each call."""

    def __init__(
        self, bucket: str, prefix: str = "", *, endpoint_url: str | None = None, region: str | None = None
    ) -> None:
        """Name the bucket, which has to exist, and the folder within it; no request is made yet."""
        self.bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        config = Config(
            max_pool_connections=CONNECTIONS,
            connect_timeout=5,
            read_timeout=60,
            retries={"mode": "standard", "total_max_attempts": 5},
            # CRC32 trailers are newer than many compatible stores; SHA-256 is checked here in any case.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        self._client: S3Client = boto3.client("s3", endpoint_url=endpoint_url, region_name=region, config=config)
        self._transfer = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=4)

    def put(self, data: bytes) -> str:
        """Store bytes; the server checks their digest on arrival."""
        digest = hashlib.sha256(data).hexdigest()
        self._put(digest, data)
        return digest

    def put_file(self, path: Path, *, sha256: str | None = None) -> str:
        """Store a file, then remove it; the server checks its digest on arrival, unless it is sent in parts."""
        digest = checked_digest(sha256) if sha256 is not None else file_digest(path)
        if path.stat().st_size < PART:
            with path.open("rb") as file:
                self._put(digest, file)
        else:
            self._client.upload_file(str(path), self.bucket, self._key(digest), Config=self._transfer)
        path.unlink()
        return digest

    def _put(self, digest: str, body: bytes | BinaryIO) -> None:
        checksum = base64.b64encode(bytes.fromhex(digest)).decode()
        self._client.put_object(Bucket=self.bucket, Key=self._key(digest), Body=body, ChecksumSHA256=checksum)

    def get(self, sha256: str) -> bytes:
        """The stored bytes, checked."""
        data = b"".join(self._chunks(sha256))
        if (found := hashlib.sha256(data).hexdigest()) != sha256:
            raise damaged(sha256, found)
        return data

    def fetch(self, sha256: str, target: Path) -> None:
        """Copy a blob to a file."""
        hashed = hashlib.sha256()
        with arriving(target) as unfinished:
            with unfinished.open("wb") as file:
                for chunk in self._chunks(sha256):
                    hashed.update(chunk)
                    file.write(chunk)
            if hashed.hexdigest() != sha256:
                raise damaged(sha256, hashed.hexdigest())

    def parts(self, sha256: str, spans: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Bytes of the object, with one request for each span."""
        for offset, length in spans:
            wanted = f"bytes={offset}-{offset + length - 1}"
            try:
                answer = self._client.get_object(Bucket=self.bucket, Key=self._key(sha256), Range=wanted)
            except ClientError as error:
                if error.response["Error"]["Code"] == "NoSuchKey":
                    raise missing(sha256) from None
                if error.response["Error"]["Code"] != "InvalidRange":
                    raise
                yield b""  # the blob ends before this span
            else:
                with answer["Body"] as body:
                    yield body.read()

    def exists(self, sha256: str) -> bool:
        """Whether the object is there."""
        try:
            self._client.head_object(Bucket=self.bucket, Key=self._key(sha256))
        except ClientError as error:
            if error.response["Error"]["Code"] in ABSENT:
                return False
            raise
        return True

    def delete(self, sha256: str) -> None:
        """Remove the object."""
        try:
            self._client.delete_object(Bucket=self.bucket, Key=self._key(sha256))
        except (BotoCoreError, ClientError) as error:
            raise OSError(str(error)) from error

    def digests(self, *, least_age: float = 0.0) -> Iterator[str]:
        """List the bucket, a page in memory at a time."""
        latest = datetime.now(UTC) - timedelta(seconds=least_age)
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._prefix):
            old = (entry for entry in page.get("Contents", []) if least_age <= 0 or entry["LastModified"] <= latest)
            names = (entry["Key"].rpartition("/")[2] for entry in old)
            yield from (name for name in names if DIGEST.fullmatch(name))

    def sync(self) -> None:
        """Nothing to wait for: the store answers a put once it is durable."""

    def _key(self, sha256: str) -> str:
        return f"{self._prefix}{checked_digest(sha256)[:2]}/{sha256}"

    def _chunks(self, sha256: str) -> Iterator[bytes]:
        """The object's bytes a mebibyte at a time."""
        try:
            body = self._client.get_object(Bucket=self.bucket, Key=self._key(sha256))["Body"]
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchKey":
                raise missing(sha256) from None
            raise
        with body:
            yield from body.iter_chunks(CHUNK)
