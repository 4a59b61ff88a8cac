"""Exemplars: how many a class keeps, which go first, and that chance is the seed's alone."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from storage.domain import Memory
from trainer.learning.data import ImageSet
from trainer.learning.exemplars import choose, herd


def herded_by_hand(features: np.ndarray, count: int, kept: np.ndarray) -> list[int]:
    """Algorithm 4 as it is printed, one candidate at a time."""
    candidates = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    there = list(kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), 1e-12))
    mean = np.mean([*there, *candidates], axis=0)
    chosen: list[int] = []
    while len(chosen) < min(count, len(candidates)):
        distances = {
            position: np.linalg.norm(mean - np.mean([*there, candidate], axis=0))
            for position, candidate in enumerate(candidates)
            if position not in chosen
        }
        nearest = min(distances.values())
        chosen.append(next(position for position, distance in distances.items() if distance < nearest + 1e-9))
        there.append(candidates[chosen[-1]])
    return chosen


@pytest.mark.parametrize("kept", [0, 1, 7])
@pytest.mark.parametrize("dim", [1, 3, 40])
def test_herding_is_the_printed_algorithm(kept, dim):
    generator = np.random.default_rng(10 * dim + kept)
    features, there = generator.normal(1, 1, (30, dim)), generator.normal(1, 1, (kept, dim))
    found = herd(torch.from_numpy(features), count=30, kept=torch.from_numpy(there))
    assert found == herded_by_hand(features, 30, there)


directions = st.lists(st.lists(st.integers(-2, 2), min_size=2, max_size=2), max_size=8)


@given(features=directions, kept=directions, count=st.integers(0, 9))
def test_herding_is_the_printed_algorithm_also_where_features_are_equal_opposite_or_zero(features, kept, count):
    rows, there = (np.array(part, dtype=float).reshape(-1, 2) for part in (features, kept))
    found = herd(torch.from_numpy(rows), count=count, kept=torch.from_numpy(there))
    assert found == (herded_by_hand(rows, count, there) if features else [])


def test_the_first_is_nearest_to_the_mean_and_of_equals_the_first():
    right, up, between = [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]
    assert herd(torch.tensor([right, up, between]), count=3) == [2, 0, 1]


def test_of_candidates_equally_near_the_first_goes_first_however_their_sums_are_rounded():
    generator = torch.Generator().manual_seed(0)
    for feature in torch.rand(50, 7, generator=generator):
        turned = torch.stack([feature.roll(places) for places in range(7)])  # their mean is level
        assert herd(turned, count=1) == [0]


def test_what_is_kept_counts_in_the_mean_and_in_the_sum():
    right, up = [1.0, 0.0], [0.0, 1.0]
    assert herd(torch.tensor([right, up]), count=2) == [0, 1]
    assert herd(torch.tensor([right, up]), count=2, kept=torch.tensor([right, right])) == [1, 0]


def test_only_the_direction_of_a_feature_counts():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(40, 8, generator=generator) + 1
    lengths = torch.rand(40, 1, generator=generator) * 100 + 0.01
    assert herd(features * lengths, count=40) == herd(features, count=40)


@pytest.mark.parametrize("dim", [3, 64, 129])
def test_of_equal_features_the_first_goes_first_on_any_number_of_threads(dim):
    generator = torch.Generator().manual_seed(dim)
    different = torch.randn(10, dim, generator=generator) + 0.5
    which = torch.randint(10, (5003,), generator=generator)
    orders = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        orders.append(herd(different[which], count=60))
    torch.set_num_threads(1)
    assert orders[0] == orders[1]
    for direction in range(10):
        taken = [position for position in orders[0] if which[position] == direction]
        assert taken == (which == direction).nonzero().flatten()[: len(taken)].tolist()


def test_memory_grows_with_the_number_of_images_and_not_with_its_square():
    assert len(set(herd(torch.ones(200_000, 2), count=3))) == 3  # its square would be 320 GB


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_the_order_is_the_same():
    features = torch.randn(500, 64, generator=torch.Generator().manual_seed(0))
    kept = torch.randn(20, 64, generator=torch.Generator().manual_seed(1))
    assert herd(features.cuda(), count=40, kept=kept.cuda()) == herd(features, count=40, kept=kept)


def test_features_are_left_as_they_were():
    features, kept = torch.rand(5, 3), torch.rand(2, 3)
    before = features.clone(), kept.clone()
    herd(features, count=5, kept=kept)
    assert torch.equal(features, before[0])
    assert torch.equal(kept, before[1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_rank_nothing(value):
    with pytest.raises(ValueError, match="finite"):
        herd(torch.tensor([[1.0, value], [1.0, 1.0]]), count=1)


def images_of(ids: Mapping[int, Sequence[str]]) -> ImageSet:
    """Images of given targets, whose pixels tell their id; targets take turns, as in a batch."""
    rows = sorted((place, target, name) for target, names in ids.items() for place, name in enumerate(names))
    pixels = torch.tensor([[sum(name.encode()) % 256, int(name[1:] or 0) + 1] for _, _, name in rows])
    return ImageSet(
        pixels.to(torch.uint8).reshape(-1, 1, 1, 2),
        targets=torch.tensor([target for _, target, _ in rows], dtype=torch.int64),
        ids=tuple(name for _, _, name in rows),
    )


def unneeded(_images: ImageSet) -> Tensor:
    raise AssertionError("no features are needed")


def pixel_features(images: ImageSet) -> Tensor:
    return images.pixels.flatten(1).float()


BASIL, CHIVE, DILL, FENNEL = range(4)
NEW = {BASIL: [f"b{number}" for number in range(30)], CHIVE: [f"c{number}" for number in range(30)]}


def chosen_from(
    candidates: Mapping[int, Sequence[str]],
    kept: Mapping[int, Sequence[str]] | None = None,
    *,
    share: int,
    seed: int = 0,
    selection="random",
) -> dict[int, tuple[str, ...]]:
    return choose(
        candidates=images_of(candidates),
        kept=None if kept is None else images_of(kept),
        share=share,
        selection=selection,
        seed=seed,
        features=unneeded if selection == "random" else pixel_features,
    )


either = pytest.mark.parametrize("selection", ["random", "herding"])


@either
def test_every_class_gets_its_share_of_its_own_images(selection):
    chosen = chosen_from(NEW, share=20, selection=selection)
    assert chosen.keys() == NEW.keys()
    for target, ids in chosen.items():
        assert len(ids) == 20
        assert set(ids) <= set(NEW[target])


@either
def test_a_class_of_fewer_images_than_its_share_keeps_them_all(selection):
    chosen = chosen_from({BASIL: ["b1", "b2", "b3"]}, share=20, selection=selection)
    assert sorted(chosen[BASIL]) == ["b1", "b2", "b3"]


def test_no_share_keeps_nothing():
    assert chosen_from(NEW, {DILL: ["d1"]}, share=0) == {BASIL: (), CHIVE: (), DILL: ()}


@either
def test_what_was_kept_stays_first_and_in_its_order(selection):
    chosen = chosen_from(NEW, {BASIL: ["b7", "b2", "b9"]}, share=10, selection=selection)
    assert chosen[BASIL][:3] == ("b7", "b2", "b9")
    assert len(set(chosen[BASIL])) == 10


@either
def test_old_classes_keep_theirs_where_the_batch_has_none_of_them(selection):
    chosen = chosen_from(NEW, {DILL: ["d3", "d1"], FENNEL: ["f2"]}, share=5, selection=selection)
    assert chosen[DILL] == ("d3", "d1")
    assert chosen[FENNEL] == ("f2",)
    assert set(chosen) == {BASIL, CHIVE, DILL, FENNEL}


@either
def test_nothing_kept_is_nothing_whichever_way_it_is_said(selection):
    assert chosen_from(NEW, {}, share=5, selection=selection) == chosen_from(NEW, None, share=5, selection=selection)


@either
def test_as_classes_come_a_total_is_shared_out_anew_and_the_most_wanted_stay(selection):
    memory = Memory(total=40)
    known = 0
    chosen: dict[int, tuple[str, ...]] = {}
    for classes in (2, 1, 2):
        task = range(known, known + classes)
        known += classes
        before = chosen
        chosen = chosen_from(
            {target: [f"{'abcde'[target]}{number}" for number in range(30)] for target in task},
            before,
            share=memory.share(known),
            seed=known,
            selection=selection,
        )
        assert {target: len(ids) for target, ids in chosen.items()} == dict.fromkeys(range(known), 40 // known)
        for target, ids in before.items():
            assert chosen[target] == ids[: 40 // known]


names = st.lists(st.integers(0, 12).map("b{}".format), unique=True)


@either
@given(candidates=names, kept=names, share=st.integers(0, 15), seed=st.integers(0, 2**32 - 1))
def test_no_image_is_there_twice_and_no_place_stays_free(selection, candidates, kept, share, seed):
    found = chosen_from({BASIL: candidates}, {BASIL: kept}, share=share, seed=seed, selection=selection)
    chosen = found.get(BASIL, ())
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= {*candidates, *kept}
    assert len(chosen) == min(share, len({*candidates, *kept}))
    assert list(chosen[: len(kept)]) == kept[:share]


@pytest.mark.parametrize("kept", [{}, {BASIL: ["b1", "b2"]}], ids=["nothing kept", "some kept"])
def test_the_seed_decides_and_nothing_else(kept):
    def drawn(seed: int, global_seed: int) -> dict[int, tuple[str, ...]]:
        torch.manual_seed(global_seed)
        return chosen_from(NEW, kept, share=10, seed=seed)

    assert drawn(3, 1) == drawn(3, 2)
    assert drawn(3, 1)[BASIL] != drawn(4, 1)[BASIL]


def test_neither_names_nor_class_indices_change_what_is_drawn():
    first = chosen_from(NEW, share=10)
    second = chosen_from(
        {4: [f"x{number}" for number in range(30)], 9: [f"y{number}" for number in range(30)]}, share=10
    )
    assert [name[1:] for name in first[BASIL]] == [name[1:] for name in second[4]]
    assert [name[1:] for name in first[CHIVE]] == [name[1:] for name in second[9]]


def test_two_classes_of_equal_size_are_drawn_independently():
    chosen = chosen_from(NEW, share=30)
    assert [name[1:] for name in chosen[BASIL]] != [name[1:] for name in chosen[CHIVE]]


def test_every_image_is_as_likely_as_every_other():
    counts = dict.fromkeys(NEW[BASIL], 0)
    for seed in range(600):
        for name in chosen_from({BASIL: NEW[BASIL]}, share=10, seed=seed)[BASIL]:
            counts[name] += 1
    # Each is drawn a third of the time: 200 of 600, with a standard deviation of 11.5.
    assert all(200 - 5 * 11.5 < count < 200 + 5 * 11.5 for count in counts.values())


@pytest.mark.parametrize("kept", [["b3", "b11"], []], ids=["some kept", "nothing kept"])
def test_herded_places_are_those_of_the_printed_algorithm(kept):
    free = [name for name in NEW[BASIL] if name not in kept]
    features, there = (pixel_features(images_of({BASIL: part})).double().numpy() for part in (free, kept))
    expected = [free[position] for position in herded_by_hand(features, 12 - len(kept), there)]
    assert chosen_from(NEW, {BASIL: kept}, share=12, selection="herding")[BASIL] == (*kept, *expected)


def test_herding_does_not_depend_on_the_seed():
    assert chosen_from(NEW, share=9, seed=1, selection="herding") == chosen_from(
        NEW, share=9, seed=2, selection="herding"
    )


def test_features_are_asked_a_class_at_a_time_and_only_where_places_are_free():
    asked: list[set[str]] = []

    def watched(images: ImageSet) -> Tensor:
        asked.append(set(images.ids))
        return pixel_features(images)

    kept = {BASIL: ["b1", "b2"], CHIVE: ["c1", "c2", "c3", "c4"], DILL: ["d1"], FENNEL: ["f1"]}
    candidates = {BASIL: ["b2", "b5", "b6"], CHIVE: ["c7"], FENNEL: ["f1"], 4: ["a1", "a2"]}
    choose(
        candidates=images_of(candidates),
        kept=images_of(kept),
        share=4,
        selection="herding",
        seed=0,
        features=watched,
    )
    assert asked == [{"b1", "b2", "b5", "b6"}, {"a1", "a2"}]
