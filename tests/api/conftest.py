"""One service for all tests of the routes; each test works with models of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from storage.settings import Settings
from tests.api.servers import Scripted, api_without_worker, scripted_servers
from tests.api.worlds import World, redis_server, running
from tests.conftest import copy_sqlite
from tests.postgresql import PostgreSQL

MAX_REQUEST_BYTES = 1 << 20
MAX_UPLOAD_BYTES = 4 << 20


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running Redis."""
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def settings_for(migrated_sqlite: Path, redis_url: str) -> Callable[..., Settings]:
    """Settings of a service with a fresh database in a folder, and small limits."""

    def make(home: Path, **values: Any) -> Settings:
        copy_sqlite(migrated_sqlite, home / "accrete.db")
        defaults: dict[str, Any] = {
            "database_url": None,  # whatever the environment says
            "blob_url": None,
            "redis_url": redis_url,
            "keys": "none",
            "max_request_bytes": MAX_REQUEST_BYTES,
            "max_upload_bytes": MAX_UPLOAD_BYTES,
            "max_image_bytes": MAX_REQUEST_BYTES // 2,
            "max_images_per_request": 8,
        }
        return Settings(home=home, **(defaults | values))

    return make


@pytest.fixture(scope="session")
def shared_world(settings_for: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The service behind `world`."""
    with running(settings_for(tmp_path_factory.mktemp("home"))) as started:
        yield started


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    """A running service; what a test leaves in the queue is cancelled after it."""
    yield shared_world
    shared_world.cancel_everything()


@pytest.fixture
def http(world: World) -> httpx.Client:
    """A client of it."""
    return world.http


@pytest.fixture
def server() -> Iterator[PostgreSQL]:
    """A PostgreSQL that may be stopped."""
    with PostgreSQL.running() as started:
        yield started


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """Start scripted servers."""
    with scripted_servers() as start:
        yield start


@pytest.fixture
def api_url(tmp_path: Path) -> Iterator[str]:
    """The real API, without a worker."""
    with api_without_worker(tmp_path / "home") as url:
        yield url
