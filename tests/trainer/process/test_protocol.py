"""What one end of the protocol writes the other end reads, and what neither writes is refused by name."""

import json
from pathlib import Path

import pytest

from trainer.process.protocol import (
    MESSAGES,
    CheckpointLeft,
    EpochDone,
    Failure,
    Made,
    Note,
    Order,
    ProgressMade,
    StageBegun,
    StillAlive,
    Unreadable,
    decode,
)

SAID = [
    StageBegun("ingesting"),
    StageBegun("training", resumed_from_epoch=3),
    ProgressMade("loading", step=0, steps=5),
    ProgressMade("training", 1, 2, 3, 4, loss=0.5, images_per_second=1e3, eta_seconds=0.0),
    StillAlive(),
    EpochDone(epoch=1, epochs=2, loss=1.25, images_per_second=10, seconds=0.125),
    CheckpointLeft(7),
    Note("two\nlines, and a „quote“"),
]
MADE = Made(
    number=2,
    parent=None,
    tasks=[["anise", "basil"], ["chive"]],
    data_digest="0" * 64,
    code_version="accrete 1",
    metrics={"taw": {"average_accuracy": None}},
    exemplars={"anise": ["a", "b"]},
    seconds={"training": 1.5},
)
ORDER = Order(increment="0" * 32, attempt=3, folder="/tmp/ä", settings={"threads": None}, spawned_at=1.5)


@pytest.mark.parametrize("message", SAID, ids=lambda message: type(message).__name__)
def test_every_message_comes_back_from_its_line(message):
    line = message.encode()
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert decode(line.encode()) == message


def test_every_kind_of_message_is_tried():
    assert {type(message) for message in SAID} == set(MESSAGES.values())


def test_what_is_not_known_is_not_said():
    assert json.loads(StageBegun("loading").encode()) == {"kind": "stage", "stage": "loading"}
    assert ProgressMade("loading", step=1).data() == {"stage": "loading", "step": 1}


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (b"Traceback\n", "Traceback.* is no JSON"),
        (b"\xff\n", "is no JSON: UnicodeDecodeError"),
        (b"[" * 60_000, "is no JSON: RecursionError"),
        (b"5\n", "5.* is no object"),
        (b'{"text": "hello"}', "is no message: its kind is 'None'"),
        (b'{"kind": "song"}', "is no message: its kind is 'song'"),
        (b'{"kind": ["note"]}', "is no message"),
        (b'{"kind": "note"}', "a message of kind 'note' is incomplete: .*text"),
        (b'{"kind": "note", "text": 5}', "a message of kind 'note' cannot have text = 5"),
        (b'{"kind": "alive", "well": 1}', "a message of kind 'alive' has no 'well'"),
        (b'{"kind": "stage", "stage": "resting"}', "a message of kind 'stage' cannot have stage = 'resting'"),
        (b'{"kind": "checkpoint", "epoch": true}', "a message of kind 'checkpoint' cannot have epoch = True"),
        (b'{"kind": "checkpoint", "epoch": 1.5}', "a message of kind 'checkpoint' cannot have epoch = 1.5"),
    ],
)
def test_a_line_that_is_no_message_is_refused_by_name(line, named):
    with pytest.raises(Unreadable, match=named):
        decode(line)


def test_an_order_comes_back_from_its_line():
    assert ORDER.encode().count(b"\n") == 1
    assert Order.decode(ORDER.encode()) == ORDER


def test_an_order_that_is_cut_short_is_refused_by_name():
    with pytest.raises(Unreadable, match=r"b'' is no JSON"):
        Order.decode(b"")
    with pytest.raises(Unreadable, match=r"an order is incomplete: .*attempt"):
        Order.decode(b'{"increment": "0"}')


def test_what_is_left_in_the_folder_comes_back_from_it(tmp_path: Path):
    MADE.write(tmp_path)
    assert Made.read(tmp_path) == MADE
    Failure("no data").write(tmp_path)
    assert Failure.read(tmp_path) == Failure("no data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["failure.json", "outcome.json"]


def test_what_was_left_by_halves_is_refused_by_name(tmp_path: Path):
    (tmp_path / "outcome.json").write_text('{"number": 1}')
    with pytest.raises(Unreadable, match="an outcome is incomplete"):
        Made.read(tmp_path)
    (tmp_path / "failure.json").write_text("{")
    with pytest.raises(Unreadable, match="is no JSON"):
        Failure.read(tmp_path)
