"""The table of networks says what networks do."""

import pytest

from trainer.networks import names, tabulate
from trainer.networks.limits import LARGEST
from trainer.networks.table import NETWORKS
from trainer.networks.tabulate import Trial, alike, measure, progressions, rendered

TRIED = sorted({alike(name) for name in NETWORKS})


def test_the_table_has_the_networks_of_this_torchvision():
    assert tuple(NETWORKS) == names()


def test_the_file_is_what_the_command_writes():
    assert tabulate.FILE.read_text(encoding="utf-8") == rendered(NETWORKS)


def test_networks_that_are_tried_as_one_have_equal_rows():
    for name, row in NETWORKS.items():
        assert NETWORKS[alike(name)] == row
    assert alike("regnet_y_128gf") == "regnet_y_400mf"
    assert alike("resnet18") == "resnet18"


@pytest.mark.parametrize("name", TRIED)
def test_every_network_does_as_the_table_says_at_the_edges(name):
    """With grey images: the table was measured with colour, so the number of channels does not matter."""
    sizes, attention = NETWORKS[name]
    trial = Trial(name, channels=1)
    for some in sizes[:2]:
        assert trial.takes(some[0])
        for refused in {some[0] - 1, some[0] + 1} - {0}:
            assert trial.takes(refused) == any(refused in other for other in sizes)
    if attention is not None:
        assert trial.attends(attention)
        assert not trial.attends(attention - 1)


@pytest.mark.parametrize("name", ["resnet32", "alexnet", "swin_t", "squeezenet1_0"])
def test_above_the_least_size_every_size_is_taken(name):
    sizes, _ = NETWORKS[name]
    trial = Trial(name)
    assert all(trial.takes(size) for size in (*range(sizes[0][0], sizes[0][0] + 8), 224, 333, 512, LARGEST))


@pytest.mark.parametrize("name", ["vit_b_32", "maxvit_t"])
def test_a_network_that_is_built_for_a_size_refuses_all_others(name):
    sizes, trial = NETWORKS[name][0], Trial(name)
    for size in (*range(1, 70), 219, 220, 221, 222, 224, 225, LARGEST - 1, LARGEST):
        assert trial.takes(size) == any(size in some for some in sizes)


def test_measuring_finds_the_edges():
    assert measure("squeezenet1_1") == ((range(17, LARGEST + 1),), None)
    assert measure("resnet32") == ((range(1, LARGEST + 1),), 5)


def test_a_network_that_refuses_a_size_above_its_least_is_not_written_down(monkeypatch):
    monkeypatch.setattr(Trial, "takes", lambda _trial, size: size >= 10 and size != 41)
    with pytest.raises(ValueError, match="alexnet: 31 pixels more than the least size are refused"):
        measure.__wrapped__("alexnet")


@pytest.mark.parametrize(
    ("sizes", "ranges"),
    [
        ([3, 4, 5], (range(3, 6),)),
        ([16, 32, 48], (range(16, 49, 16),)),
        ([7], (range(7, 8),)),
        ([1, 2, 7, 9, 10], (range(1, 3), range(7, 8), range(9, 11))),
        ([], ()),
    ],
)
def test_sizes_are_written_as_few_ranges(sizes, ranges):
    assert progressions(sizes) == ranges


def test_only_the_networks_that_are_named_are_measured_and_those_the_table_lacks(monkeypatch):
    without = {name: row for name, row in NETWORKS.items() if name != "squeezenet1_1"} | {"alexnet": ((), None)}
    monkeypatch.setattr(tabulate, "NETWORKS", without)
    assert tabulate.rows(["resnet32"]) == NETWORKS | {"alexnet": ((), None)}
    assert tuple(tabulate.rows(["resnet32"])) == tuple(NETWORKS)


def test_a_network_that_there_is_not_cannot_be_measured():
    with pytest.raises(ValueError, match="no network 'resnet33' \\(similar: resnet3"):
        tabulate.rows(["resnet33"])
