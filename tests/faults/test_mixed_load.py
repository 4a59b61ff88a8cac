"""Increments, predictions and promotions while processes are killed at random: nothing that was answered is lost.

`make faults` runs it for half an hour; what it prints goes into docs/reliability.md.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.worlds import redis_server
from tests.faults.storm import SETTINGS, Storm
from tests.flow.conftest import Service
from tests.postgresql import PostgreSQL

pytestmark = pytest.mark.flow
SECONDS = float(os.environ.get("FAULTS_SECONDS", "30"))
IS_LONG = SECONDS >= 600
SEED = int(os.environ.get("FAULTS_SEED", "1"))
PAUSE_SECONDS = 5.0 if IS_LONG else 2.0  # between killings: in a short run each has to count
KILLED = SECONDS / PAUSE_SECONDS / 4  # processes, at the least


@pytest.fixture
def parts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Where database and broker are: embedded, or servers of their own (FAULTS_PARTS=separate)."""
    if os.environ.get("FAULTS_PARTS", "embedded") == "embedded":
        yield {}
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis") as redis_url:
        yield {"ACCRETE_DATABASE_URL": server.url(server.create()), "ACCRETE_REDIS_URL": redis_url}


@pytest.mark.timeout(SECONDS + 900)
def test_nothing_is_lost_however_often_processes_are_killed(
    tmp_path: Path, parts: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    service = Service(tmp_path / "home", SETTINGS | parts)
    service.start()
    storm = Storm(service, tmp_path, seed=SEED, pause_seconds=PAUSE_SECONDS)
    tally = storm.tally

    def enough() -> bool:
        counts = tally.counts
        return tally.killed >= KILLED and counts["predictions"] > SECONDS and counts["increments"] >= 2

    try:
        storm.rage(SECONDS, enough=enough)
        storm.settle()
        storm.collect()
    finally:
        storm.end()
    with capsys.disabled():
        sys.stdout.write(f"\n{SECONDS:g} s, seed {SEED}\n{tally.told()}")
    assert tally.faults == []
    assert tally.killed >= KILLED
    assert tally.counts["predictions"] > SECONDS
    assert tally.counts["ended as succeeded"] >= 2
