"""Events: the numbered steps of an increment's life."""

from storage.work import events
from tests.storage.worlds import World


def test_a_reader_who_was_cut_off_goes_on_after_what_it_saw(world: World):
    made = world.push(world.create(), "a", "b")
    claim = world.must_claim()
    world.write(events.add, made.id, kind="epoch", data={"epoch": 1})
    world.end(claim)
    everything = world.read(events.after, made.id, 0)
    assert [step.kind for step in everything] == ["status", "status", "epoch", "status"]
    assert world.read(events.after, made.id, 2) == everything[2:]
    assert world.read(events.after, made.id, 4) == ()
    assert world.read(events.after, made.id, 2**70) == ()
