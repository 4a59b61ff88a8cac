"""Prediction records: what was answered comes back, newest first."""

from datetime import timedelta

import pytest

from storage.domain import Model, Prediction, new_id, now
from storage.errors import Invalid, PredictionNotFound
from storage.requests import predictions
from tests.storage.worlds import World


def record(model: Model, *shares: tuple[str, float]) -> Prediction:
    return Prediction(new_id(), model.id, 1, (shares, shares), now())


def test_a_record_comes_back_to_the_last_bit(world: World):
    made = record(world.create(), ("größe", 0.1 + 0.2), ("b", 1e-300), ("c", 1.0))
    world.write(predictions.add, [made])
    assert world.read(predictions.get, made.id) == made


def test_a_record_that_is_not_there_is_said_by_id(world: World):
    with pytest.raises(PredictionNotFound, match="nowhere"):
        world.read(predictions.get, "nowhere")


def test_no_records_are_written_as_none(world: World):
    world.write(predictions.add, [])
    assert world.rows()["predictions"] == 0


def test_records_are_paged_newest_first_while_more_arrive(world: World):
    model, other = world.create("mine"), world.create("other")
    made = [record(model, (str(n), 1.0)) for n in range(5)]
    for one in made:
        world.write(predictions.add, [one, record(other, ("x", 1.0))])
    first = world.read(predictions.page, model, limit=2, cursor=None)
    world.write(predictions.add, [record(model, ("late", 1.0))])
    second = world.read(predictions.page, model, limit=2, cursor=first.next_cursor)
    third = world.read(predictions.page, model, limit=2, cursor=second.next_cursor)
    assert [*first.items, *second.items, *third.items] == made[::-1]
    assert third.next_cursor is None


def test_records_of_one_moment_keep_the_order_they_were_written_in(world: World):
    model = world.create()
    same = now() - timedelta(days=1)
    made = [Prediction(new_id(), model.id, 1, (), same) for _ in range(20)]
    world.write(predictions.add, made)
    assert world.read(predictions.page, model, limit=50, cursor=None).items == tuple(made[::-1])


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "next",
        "MQ==",
        "MS41",
        "LTE",
        "bm9uZQ",
        "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk",
        "4pyT",
        "é",
        "A" * 10_000,
    ],
)
def test_a_cursor_that_was_not_handed_out_is_refused(world: World, cursor: str):
    with pytest.raises(Invalid, match="next_cursor"):
        world.read(predictions.page, world.create(), limit=2, cursor=cursor)
