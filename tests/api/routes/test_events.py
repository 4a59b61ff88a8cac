"""The event stream of an increment: its order, its ids, where it resumes, and when it ends."""

import json
import threading
import time
from contextlib import contextmanager
from queue import Queue
from threading import Thread

import pytest

from storage.database.engine import Database
from storage.domain import IncrementStatus
from tests.api.worlds import Json, problem, running, stream_events

WITHIN = 60.0  # seconds a test waits for an event before it fails


class Follower:
    """Reads an event stream in a thread of its own."""

    def __init__(self, http, increment_id, **headers):
        self.events: Queue[tuple[str, str | None, Json]] = Queue()
        self.ended = False
        self.thread = Thread(target=self._read, args=(http, increment_id, headers))
        self.thread.start()

    def _read(self, http, increment_id, headers):
        with http.stream("GET", f"/v1/increments/{increment_id}/events", headers=headers) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["cache-control"] == "no-cache"
            for event in stream_events(answer.iter_lines()):
                self.events.put(event)
        self.ended = True

    def next(self):
        """Kind, id and data of the next event."""
        return self.events.get(timeout=WITHIN)

    def rest(self):
        """All that comes until the stream ends by itself."""
        self.thread.join(WITHIN)
        assert self.ended
        return [self.events.get_nowait() for _ in range(self.events.qsize())]


def durable(events):
    """The events with an id, without their data."""
    return [(kind, number) for kind, number, _ in events if number is not None]


def test_a_whole_life_is_told_in_order_and_as_it_happens(http, world):
    asked = world.increment(world.model(), "cat", "dog")
    follower = Follower(http, asked["id"])
    kind, number, data = follower.next()
    assert (kind, number) == ("status", "1")
    assert data == asked

    claim = world.claim(asked["id"])
    kind, number, data = follower.next()
    assert (kind, number, data["status"], data["attempt"]) == ("status", "2", "running", 1)

    world.step(claim, "stage", stage="training", attempt=1)
    assert follower.next() == ("stage", "3", {"stage": "training", "attempt": 1})

    world.progress(claim, stage="training", epoch=1, epochs=2, step=5, steps=10, loss=1.25)
    kind, number, data = follower.next()
    assert (kind, number, data["step"], data["loss"]) == ("progress", None, 5, 1.25)

    world.step(claim, "epoch", epoch=1, epochs=2, loss=1.0, images_per_second=100.0, seconds=0.5)
    kind, number, data = follower.next()
    assert (kind, number, data["epoch"], data["epochs"]) == ("epoch", "4", 1, 2)

    number = world.publish(claim, ["cat", "dog"])
    kind, last, data = follower.next()
    assert (kind, last) == ("status", "5")
    assert (data["status"], data["version"], data["promoted"]) == ("succeeded", number, True)
    assert data == http.get(f"/v1/increments/{asked['id']}").json()
    assert follower.rest() == []


def test_news_come_one_by_one_as_they_are_written(http, world):
    claim = world.claim(world.increment(world.model(), "cat", "dog")["id"])
    follower = Follower(http, claim.increment_id)
    for _ in range(2):
        follower.next()
    for step in range(3):
        world.progress(claim, stage="training", step=step, steps=3)
        assert follower.next()[2]["step"] == step
    world.end(claim, IncrementStatus.CANCELLED)
    follower.rest()


@pytest.mark.parametrize(("last_event_id", "told"), [("0", [1, 2, 3, 4]), ("2", [3, 4]), ("3", [4])])
def test_a_reader_that_was_cut_off_goes_on_where_it_was(http, world, last_event_id, told):
    claim = world.claim(world.increment(world.model(), "cat", "dog")["id"])
    world.step(claim, "stage", stage="training", attempt=1)
    world.end(claim, IncrementStatus.FAILED, reason="bad data")
    events = Follower(http, claim.increment_id, **{"Last-Event-ID": last_event_id}).rest()
    assert [int(number) for _, number in durable(events)] == told


def test_a_late_reader_sees_each_status_as_it_was_then(http, world):
    claim = world.claim(world.increment(world.model(), "cat", "dog")["id"])
    world.end(claim, IncrementStatus.FAILED, reason="bad data")
    events = Follower(http, claim.increment_id).rest()
    assert [data["status"] for kind, _, data in events if kind == "status"] == ["queued", "running", "failed"]
    assert events[-1][2]["error"] == "bad data"


def test_cancelling_ends_the_stream(http, world):
    asked = world.increment(world.model(), "cat", "dog")
    follower = Follower(http, asked["id"])
    follower.next()
    http.post(f"/v1/increments/{asked['id']}/cancel")
    assert [data["status"] for _, _, data in follower.rest()] == ["cancelled"]


def test_a_second_try_goes_on_in_the_same_stream_of_ids(http, world):
    asked = world.increment(world.model(), "cat", "dog")
    http.post(f"/v1/increments/{asked['id']}/cancel")
    first = durable(Follower(http, asked["id"]).rest())
    http.post(f"/v1/increments/{asked['id']}/retry")
    http.post(f"/v1/increments/{asked['id']}/cancel")
    second = durable(Follower(http, asked["id"], **{"Last-Event-ID": first[-1][1]}).rest())
    assert [int(number) for _, number in first + second] == [1, 2, 3, 4]


def test_several_readers_see_the_same(http, world):
    claim = world.claim(world.increment(world.model(), "cat", "dog")["id"])
    followers = [Follower(http, claim.increment_id) for _ in range(5)]
    for follower in followers:
        follower.next()
    world.step(claim, "stage", stage="training", attempt=1)
    world.end(claim, IncrementStatus.CANCELLED)
    told = [json.dumps(follower.rest()[1:]) for follower in followers]
    assert len(set(told)) == 1


def test_an_unknown_increment_is_404_before_any_stream(http):
    problem(http.get(f"/v1/increments/{'0' * 32}/events"), 404, "increment-not-found")


@pytest.mark.parametrize("last_event_id", ["-1", "x", "1.5", "9" * 5000])
def test_an_event_id_that_is_none_is_refused(http, world, last_event_id):
    asked = world.increment(world.model(), "cat", "dog")
    answer = http.get(f"/v1/increments/{asked['id']}/events", headers={"Last-Event-ID": last_event_id})
    problem(answer, 422, "request-invalid")


@pytest.mark.parametrize("last_event_id", ["2", "99", "2147483648", "9" * 30])
def test_a_reader_who_has_all_there_is_is_told_to_ask_no_more(http, world, last_event_id):
    asked = world.increment(world.model(), "cat", "dog")
    path, headers = f"/v1/increments/{asked['id']}/events", {"Last-Event-ID": last_event_id}
    http.post(f"/v1/increments/{asked['id']}/cancel")
    answer = http.get(path, headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
    http.post(f"/v1/increments/{asked['id']}/retry")
    http.post(f"/v1/increments/{asked['id']}/cancel")
    assert http.get(path, headers=headers).status_code == (200 if last_event_id == "2" else 204)


def test_many_readers_cost_one_look_at_the_database_together(http, world):
    claim = world.claim(world.increment(world.model(), "cat", "dog")["id"])
    looks: list[float] = []
    engine = Database.read

    @contextmanager
    def counted(self):
        if threading.current_thread() is not threading.main_thread():
            looks.append(time.monotonic())
        with engine(self) as connection:
            yield connection

    followers = [Follower(http, claim.increment_id) for _ in range(20)]
    for follower in followers:
        follower.next()
        follower.next()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "read", counted)
        began = time.monotonic()
        time.sleep(2)
        spent = time.monotonic() - began
    world.end(claim, IncrementStatus.CANCELLED)
    for follower in followers:
        assert follower.rest()[-1][2]["status"] == "cancelled"
    # Those who look again and again: the feed, the keys and the promotions, each four times a second at most.
    assert len(looks) <= 3 * (4 * spent + 1)


def test_streams_end_when_the_service_does(settings_for, tmp_path):
    with running(settings_for(tmp_path)) as world:
        follower = Follower(world.http, world.increment(world.model(), "cat", "dog")["id"])
        follower.next()
    assert follower.rest() == []


def test_the_end_is_the_last_event_whatever_progress_came_shortly_before(http, world):
    claim = world.claim(world.increment(world.model(), "cat", "dog")["id"])
    world.progress(claim, stage="training", step=1, steps=3)
    world.end(claim, IncrementStatus.FAILED, reason="bad data")
    kind, _, data = Follower(http, claim.increment_id).rest()[-1]
    assert (kind, data["status"]) == ("status", "failed")
