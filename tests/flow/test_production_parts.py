"""The same way with the parts of production: PostgreSQL, an S3 server and a Redis of their own."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest

from api.client.client import Client
from api.process.embedded import free_port
from api.process.privateredis import answers, server_binary
from tests.flow.conftest import Service
from tests.patterns import QUICK, SIZE, unseen, write_zip
from tests.postgresql import PostgreSQL

pytestmark = pytest.mark.flow


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A Redis that nobody supervises."""
    port = free_port("127.0.0.1")
    command = [server_binary(), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}/0"
    deadline = time.monotonic() + 60
    while not answers(url):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield url
    server.terminate()
    server.wait()


def stored(s3: Any, bucket: str) -> int:
    """How many objects there are."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return sum(len(page.get("Contents", [])) for page in pages)


def test_the_whole_way_on_postgresql_s3_and_a_separate_redis(
    postgresql: PostgreSQL, s3_endpoint: str, redis_url: str, tmp_path: Path
) -> None:
    bucket, name = f"flow-{uuid4().hex}", postgresql.create()
    s3 = boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1")
    s3.create_bucket(Bucket=bucket)
    service = Service(
        tmp_path / "home",
        {
            "ACCRETE_DATABASE_URL": postgresql.url(name),
            "ACCRETE_BLOB_URL": f"s3://{bucket}/accrete?endpoint_url={s3_endpoint}&region=us-east-1",
            "ACCRETE_REDIS_URL": redis_url,
        },
    )
    service.start()
    try:
        with Client(service.url) as client:
            client.create_model("m", image_size=SIZE, recipe=QUICK, memory={"total": 20})
            for step, labels in enumerate([["anise", "basil"], ["chive", "dill"]], start=1):
                archive = write_zip(tmp_path / f"{step}.zip", labels)
                assert client.wait(client.start_increment("m", archive)["id"])["version"] == step
            record = client.predict("m", unseen("dill", 3), durable=True, version=2)
            assert client.prediction(str(record["id"]))["version"] == 2
            assert [len(row) for row in client.metrics("m")["tag"]["matrix"]] == [1, 2]
            kept = 2 * 3 + 2 * 4  # a pack and two shards a batch, four files a version
            deadline = time.monotonic() + 60  # a checkpoint, where one was due, is deleted by the next sweep
            while stored(s3, bucket) != kept and time.monotonic() < deadline:
                time.sleep(0.5)
    finally:
        assert service.stop() == 0
    assert not (tmp_path / "home" / "accrete.db").exists()
    assert not (tmp_path / "home" / "blobs").exists()
    assert stored(s3, bucket) == kept
    postgresql.drop(name)
