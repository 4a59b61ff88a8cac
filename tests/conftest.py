"""The real servers that tests use, each started once, when the first test asks for it."""

import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from storage.blobs.opening import open_blobs
from storage.blobs.store import BlobStore
from tests.postgresql import PostgreSQL

# How long an example takes is the machine's affair.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# A shell has what it starts in the background ignore Ctrl-C, and that is inherited by every service that a test starts.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Who starts whole services; what takes longest comes first.
SERVICES = {
    "each a service of its own": (
        "tests/faults/",
        "tests/flow/test_allowance",
        "tests/flow/test_anywhere",
        "tests/flow/test_production_parts",
        "tests/flow/test_resume",
        "tests/flow/test_several_processes",
    ),
    "one service for all": ("tests/flow/",),
}


def share(nodeid: str) -> str:
    """Name of the tests that are to run in one process, one after the other."""
    named = (name for name, beginnings in SERVICES.items() if nodeid.startswith(beginnings))
    return next(named, nodeid.partition("::")[0])


class Shares(LoadScopeScheduling):  # type: ignore[misc]
    """What the processes of `make test` take: two of them the tests of whole services, a third the rest by file.

    Services wait a lot, so two at once leave two processors something for the third process.
    """

    def _split_scope(self, nodeid: str) -> str:
        return share(nodeid)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small are no faster on two, and far slower where another process wants one of the processors.

    This is about the test's own process: services that it starts have their own defaults.
    """
    if (torch := sys.modules.get("torch")) is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Shares:
    """Have xdist share the tests out so."""
    return Shares(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let what takes longest begin first; who runs tests in one process has the quick ones first."""
    if hasattr(config, "workerinput"):
        places = {name: place for place, name in enumerate(SERVICES)}
        items.sort(key=lambda item: places.get(share(item.nodeid), len(places)))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A running PostgreSQL."""
    with PostgreSQL.running() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_postgresql(postgresql: PostgreSQL) -> str:
    """Name of a database with all tables and no rows, to be copied from."""
    from storage.migrations import upgrade

    name = postgresql.create()
    upgrade(postgresql.url(name))
    return name


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with all tables and no rows, to be copied from."""
    from storage.migrations import upgrade

    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """The kinds of database that every storage test runs on."""
    return str(request.param)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> Iterator[str]:
    """SQLAlchemy URL of a fresh database with all tables, for this test alone; once with SQLite, once PostgreSQL."""
    if database == "sqlite":
        path = tmp_path / "accrete.db"
        copy_sqlite(request.getfixturevalue("migrated_sqlite"), path)
        yield f"sqlite:///{path}"
    else:
        yield from temporary(request.getfixturevalue("postgresql"), request.getfixturevalue("migrated_postgresql"))


@pytest.fixture
def empty_database_url(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> Iterator[str]:
    """The same without a table, for tests of the migrations themselves."""
    if database == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        yield from temporary(request.getfixturevalue("postgresql"), "template0")


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Address of an S3 server on this machine, with the credentials for it in the environment."""
    from moto.server import ThreadedMotoServer  # takes a second, and few tests need it

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
        for variable in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            environment.delenv(variable, raising=False)
        for variable in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            environment.setenv(variable, os.devnull)
        environment.setenv("NO_PROXY", "127.0.0.1")
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["directory", "s3"])
def blob_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Location of an empty store; once a directory, once an S3 server over HTTP."""
    if request.param == "directory":
        return str(tmp_path / "blobs")
    import boto3  # takes a third of a second, and few tests need it

    endpoint = request.getfixturevalue("s3_endpoint")
    bucket = f"blobs-{uuid4().hex}"
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/accrete/images?endpoint_url={endpoint}&region=us-east-1"


@pytest.fixture
def blobs(blob_url: str) -> BlobStore:
    """An empty store of either kind."""
    return open_blobs(blob_url)


def temporary(server: PostgreSQL, template: str) -> Iterator[str]:
    """URL of a copy of a database, dropped afterwards."""
    name = server.create(template=template)
    try:
        yield server.url(name)
    finally:
        server.drop(name)


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy a database page by page: what is still in its write-ahead log comes along."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
