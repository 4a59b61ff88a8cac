"""Increments with what is shown beside them."""

import pytest

from storage.domain import IncrementReport, Reject
from storage.errors import IncrementNotFound
from storage.material import batches, rejects
from storage.work import reports
from tests.storage.worlds import World, counts


def test_a_report_says_what_stands_in_the_rows_beside_the_increment(world: World):
    model = world.create("plants")
    bad = [Reject(f"{number}.png", "is no image") for number in range(rejects.SHOWN + 20)]
    archive = {"archive": "0" * 64, "archive_kind": "zip", "classes": counts("a", "b")}
    batch = world.write(batches.create, model_id=model.id, rejects=bad, **archive)
    queued = world.request(model, batch)
    assert world.read(reports.get, queued.id) == IncrementReport(
        queued,
        model="plants",
        memory=model.memory,
        names=model.names,
        reject_count=len(bad),
        seconds={},
        rejects=tuple(bad[: rejects.SHOWN]),
    )
    world.must_claim("first", lease_seconds=-1)
    claim = world.must_claim("second")
    outcome = world.outcome(claim)
    assert world.publish(claim, outcome) is not None
    report = world.read(reports.get, queued.id)
    assert report.increment == world.look(queued.id)
    assert report.seconds == outcome.seconds
    assert [(one.attempt, one.worker) for one in report.attempts] == [(1, "first"), (2, "second")]


def test_each_increment_of_a_page_has_its_own(world: World):
    mine, other = world.create("mine"), world.create("other")
    for model in (mine, other):
        bad = [Reject("bad.png", f"of {model.name}")]
        archive = {"archive": "0" * 64, "archive_kind": "zip", "classes": counts("a", "b")}
        world.request(model, world.write(batches.create, model_id=model.id, rejects=bad, **archive))
        world.push(model, "c", "d")
        world.must_claim()
    page = world.read(reports.page, mine, limit=10, cursor=None)
    assert [[reject.reason for reject in report.rejects] for report in page.items] == [[], ["of mine"]]
    assert [len(report.attempts) for report in page.items] == [0, 1]
    assert list(page.items) == [world.read(reports.get, report.increment.id) for report in page.items]
    found = world.read(reports.of_ids, [report.increment.id for report in page.items])
    assert sorted(found, key=lambda report: -report.increment.arrival) == list(page.items)


def test_there_are_no_reports_of_what_is_not_there(world: World):
    assert world.read(reports.of_ids, ["0" * 32]) == world.read(reports.of_ids, []) == ()
    assert world.read(reports.page, world.create(), limit=10, cursor=None).items == ()
    with pytest.raises(IncrementNotFound):
        world.read(reports.get, "0" * 32)
