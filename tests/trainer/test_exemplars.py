"""Exemplars: how many a class keeps, which go first, and that chance is the seed's alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.domain import Memory
from trainer.exemplars import choose

NEW = {"basil": [f"b{number}" for number in range(30)], "chive": [f"c{number}" for number in range(30)]}


def test_every_class_gets_its_share_of_its_own_images():
    chosen = choose(candidates=NEW, kept={}, share=20, seed=0)
    assert chosen.keys() == NEW.keys()
    for label, ids in chosen.items():
        assert len(ids) == 20
        assert set(ids) <= set(NEW[label])


def test_a_class_of_fewer_images_than_its_share_keeps_them_all():
    chosen = choose(candidates={"basil": ["b1", "b2", "b3"]}, kept={}, share=20, seed=0)
    assert sorted(chosen["basil"]) == ["b1", "b2", "b3"]


def test_no_share_keeps_nothing():
    assert choose(candidates=NEW, kept={"dill": ["d1"]}, share=0, seed=0) == {"dill": (), "basil": (), "chive": ()}


def test_what_was_kept_stays_first_and_in_its_order():
    kept = {"basil": ["b7", "b2", "b9"]}
    chosen = choose(candidates=NEW, kept=kept, share=10, seed=0)
    assert chosen["basil"][:3] == ("b7", "b2", "b9")
    assert len(chosen["basil"]) == 10


def test_old_classes_keep_theirs_where_the_batch_has_none_of_them():
    kept = {"dill": ["d3", "d1"], "fennel": ["f2"]}
    chosen = choose(candidates=NEW, kept=kept, share=5, seed=0)
    assert chosen["dill"] == ("d3", "d1")
    assert chosen["fennel"] == ("f2",)
    assert set(chosen) == {"dill", "fennel", "basil", "chive"}


def test_as_classes_come_a_total_is_shared_out_anew_and_the_most_wanted_stay():
    memory = Memory(total=40)
    labels: list[str] = []
    chosen: dict[str, tuple[str, ...]] = {}
    for task in (["a", "b"], ["c"], ["d", "e"]):
        labels += task
        before = chosen
        chosen = choose(
            candidates={label: [f"{label}{number}" for number in range(30)] for label in task},
            kept=before,
            share=memory.share(len(labels)),
            seed=len(labels),
        )
        assert {label: len(ids) for label, ids in chosen.items()} == dict.fromkeys(labels, 40 // len(labels))
        for label, ids in before.items():
            assert chosen[label] == ids[: 40 // len(labels)]


names = st.lists(st.integers(0, 12).map(str), unique=True)


@given(candidates=names, kept=names, share=st.integers(0, 15), seed=st.integers(0, 2**32 - 1))
def test_no_image_is_there_twice_and_no_place_stays_free(candidates, kept, share, seed):
    chosen = choose(candidates={"basil": candidates}, kept={"basil": kept}, share=share, seed=seed)["basil"]
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= {*candidates, *kept}
    assert len(chosen) == min(share, len({*candidates, *kept}))
    assert list(chosen[: len(kept)]) == kept[:share]


@pytest.mark.parametrize("kept", [{}, {"basil": ["b1", "b2"]}], ids=["nothing kept", "some kept"])
def test_the_seed_decides_and_nothing_else(kept):
    def drawn(seed: int) -> dict[str, tuple[str, ...]]:
        return choose(candidates=NEW, kept=kept, share=10, seed=seed)

    assert drawn(3) == drawn(3)
    assert drawn(3)["basil"] != drawn(4)["basil"]


def test_two_classes_of_equal_size_are_drawn_independently():
    chosen = choose(candidates=NEW, kept={}, share=30, seed=0)
    assert [name[1:] for name in chosen["basil"]] != [name[1:] for name in chosen["chive"]]


def test_every_image_is_as_likely_as_every_other():
    counts = dict.fromkeys(NEW["basil"], 0)
    for seed in range(600):
        for name in choose(candidates={"basil": NEW["basil"]}, kept={}, share=10, seed=seed)["basil"]:
            counts[name] += 1
    # Each is drawn a third of the time: 200 of 600, with a standard deviation of 11.5.
    assert all(200 - 5 * 11.5 < count < 200 + 5 * 11.5 for count in counts.values())
