"""Both blob stores and both databases, empty, for each test of them, and a place for an uploaded archive."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import boto3
import pytest

from storage.blobs import BlobStore, open_blobs
from storage.database import Database
from tests.storage.worlds import World


@pytest.fixture(params=["directory", "s3"])
def blob_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Location of an empty store; once a directory, once an S3 server over HTTP."""
    if request.param == "directory":
        return str(tmp_path / "blobs")
    endpoint = request.getfixturevalue("s3_endpoint")
    bucket = f"blobs-{uuid4().hex}"
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/accrete/images?endpoint_url={endpoint}&region=us-east-1"


@pytest.fixture
def blobs(blob_url: str) -> BlobStore:
    """An empty store of either kind."""
    return open_blobs(blob_url)


@pytest.fixture
def archive(tmp_path: Path) -> Callable[[bytes], Path]:
    """Write the bytes of an upload to a file and say where; the next ones replace them."""

    def write(data: bytes) -> Path:
        path = tmp_path / "upload"
        path.write_bytes(data)
        return path

    return write


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """A fresh database, and hands to do in it what people and workers do."""
    database = Database(database_url)
    yield World(database)
    database.close()
