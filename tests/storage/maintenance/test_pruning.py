"""What goes by its age, and what stays however old it is; on both databases."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Table, func, select, update

from storage.database.prediction_tables import predictions as predictions_table
from storage.database.tables import answers as answers_table
from storage.database.tables import audit as audit_table
from storage.database.tables import events as events_table
from storage.database.tables import increments as increments_table
from storage.domain import IncrementStatus, Prediction, new_id, now
from storage.maintenance import pruning
from storage.maintenance.pruning import prune
from storage.requests import audit, idempotency, predictions
from storage.settings import Settings
from storage.work import events, leases
from tests.storage.worlds import World

NEW = timedelta(days=1)
DAYS = {"predictions": 90, "answers": 30, "audit": 730}  # the defaults


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(home=tmp_path)


def count(world: World, table: Table) -> int:
    with world.database.read() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def age(world: World, table: Table, **columns: Any) -> None:
    with world.database.write() as connection:
        connection.execute(update(table).values(**columns))


def predict(world: World, times: list[datetime]) -> None:
    model = world.create("asked")
    made = [Prediction(new_id(), model.id, 1, ((("cat", 1.0),),), created_at) for created_at in times]
    world.write(predictions.add, made)


def answer(world: World, times: list[datetime]) -> None:
    model = world.create("answered")
    for number, created_at in enumerate(times):
        world.write(idempotency.remember, model, key=str(number), asked={}, document={})
        with world.database.write() as connection:
            here = answers_table.c.key == str(number)
            connection.execute(update(answers_table).where(here).values(created_at=created_at))


def change(world: World, times: list[datetime]) -> None:
    for created_at in times:
        number = world.write(audit.begin, key=None, client="127.0.0.1", action="create", path="/v1/models")
        with world.database.write() as connection:
            here = audit_table.c.number == number
            connection.execute(update(audit_table).where(here).values(created_at=created_at))


@pytest.mark.parametrize(
    ("table", "write"),
    [(predictions_table, predict), (answers_table, answer), (audit_table, change)],
    ids=["predictions", "answers", "audit"],
)
def test_what_is_older_than_the_default_goes_and_what_is_younger_stays(world: World, settings, table: Table, write):
    limit = timedelta(days=DAYS[table.name])
    times = [now() - limit - NEW, now() - limit + NEW, now() - 3 * limit, now()]
    write(world, times)
    assert prune(world.database, settings)
    with world.database.read() as connection:
        assert sorted(connection.scalars(select(table.c.created_at))) == sorted([times[1], times[3]])


@pytest.mark.parametrize("days", [float("inf"), 1e300])
def test_what_is_kept_for_ever_stays_however_old_it_is(world: World, settings, days: float):
    for table, write in ((predictions_table, predict), (answers_table, answer), (audit_table, change)):
        write(world, [now() - timedelta(days=20_000)] * 3)
        assert count(world, table) == 3
    for_ever = {f"keep_{what}_days": days for what in ("predictions", "answers", "events", "audit")}
    assert prune(world.database, settings.model_copy(update=for_ever))
    assert [count(world, table) for table in (predictions_table, answers_table, audit_table)] == [3, 3, 3]


def test_a_heap_goes_in_pieces_between_which_others_write(world: World, settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pruning, "PIECE", 10)
    monkeypatch.setattr(pruning, "PIECES", 3)
    predict(world, [now() - timedelta(days=100)] * 45)
    left = []
    while not prune(world.database, settings):
        left.append(count(world, predictions_table))
    assert left == [15]
    assert count(world, predictions_table) == 0


def test_of_an_increment_that_ended_long_ago_the_last_event_stays(world: World, settings):
    model = world.create()
    ended, recent, running = (world.push(model, f"{n}a", f"{n}b") for n in range(3))
    for made in (ended, recent):
        claim = world.must_claim()
        for epoch in range(5):
            world.write(events.add, made.id, kind="epoch", data={"epoch": epoch})
        world.write(leases.end, claim, IncrementStatus.CANCELLED)
    world.must_claim()
    age(world, events_table, created_at=now() - timedelta(days=1000))
    with world.database.write() as connection:
        here = increments_table.c.id == ended.id
        long_ago = now() - timedelta(days=91)
        connection.execute(update(increments_table).where(here).values(finished_at=long_ago))
    before = [world.read(events.after, made.id, 0) for made in (ended, recent, running)]
    assert prune(world.database, settings)
    after = [world.read(events.after, made.id, 0) for made in (ended, recent, running)]
    assert after == [before[0][-1:], before[1], before[2]]
    assert after[0][0].data["status"] == "cancelled"
    assert world.look(ended.id).status is IncrementStatus.CANCELLED
    world.retry(ended, world.model())
    assert [event.sequence for event in world.read(events.after, ended.id, before[0][-1].sequence)] == [9]
