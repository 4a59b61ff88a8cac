"""What the API says of networks without building them."""

import pytest
import torch

from trainer.networks import build, check, limits
from trainer.networks.families import family_of
from trainer.networks.limits import LARGEST, in_words
from trainer.networks.table import NETWORKS


@pytest.mark.parametrize(
    ("name", "refused", "words"),
    [
        ("alexnet", 62, "height and width are 63 to 1,024 pixels"),
        ("resnet32", 1025, "height and width are 1 to 1,024 pixels"),
        ("vit_b_16", 40, "height and width are 16 to 1,024 in steps of 16 pixels"),
        ("vit_h_14", 16, "height and width are 14 to 1,022 in steps of 14 pixels"),
        ("maxvit_t", 225, "height and width are 221 to 224 or 445 to 448 or 669 to 672 or 893 to 896 pixels"),
    ],
)
def test_a_size_that_a_network_does_not_take_is_answered_with_those_it_takes(name, refused, words):
    with pytest.raises(ValueError, match=f"network '{name}' cannot take {refused} × {refused} images: {words}"):
        check(name, channels=3, image_size=refused)


@pytest.mark.parametrize(
    ("name", "image_size"), [("alexnet", 63), ("resnet32", LARGEST), ("vit_b_16", 48), ("maxvit_t", 221)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_size_that_a_network_takes_is_accepted(name, image_size, channels):
    check(name, channels=channels, image_size=image_size)


def test_sizes_are_told_in_words():
    assert in_words([range(8, 1025)]) == "8 to 1,024"
    assert in_words([range(32, 1025, 32), range(1, 3)]) == "32 to 1,024 in steps of 32 or 1 to 2"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (("resnet33", 3, 32), r"no network 'resnet33' \(similar: .*resnet32.*\); known are resnet32, alexnet"),
        (("", 3, 32), r"no network '' \(similar: none is close\)"),
        (("resnet32", 4, 32), "1 channel .* or 3 .*, got 4"),
        (("resnet32", 3, 0), "positive number of pixels, got 0"),
    ],
)
def test_what_no_network_is_or_takes_is_refused_with_the_reason(wanted, message):
    name, channels, image_size = wanted
    with pytest.raises(ValueError, match=message):
        check(name, channels=channels, image_size=image_size)


@pytest.mark.parametrize(("name", "least"), [("resnet32", 5), ("resnet18", 33), ("convnext_tiny", 64)])
def test_maps_of_a_single_position_are_refused_with_the_least_size(name, least):
    check(name, channels=3, image_size=least, attention=True)
    with pytest.raises(ValueError, match=f"single position there, .*use an image_size of {least} or more"):
        check(name, channels=3, image_size=least - 1, attention=True)
    if name != "convnext_tiny":
        check(name, channels=3, image_size=least - 1)


def test_cosine_heads_and_maps_are_for_known_families():
    for name, (_, attention) in NETWORKS.items():
        assert (attention is None) == (family_of(name) is None)
    check("resnet50", channels=3, image_size=64, head_kind="cosine", attention=True)
    with pytest.raises(ValueError, match=r"'vgg11' cannot have cosine heads: its last activation .* ConvNeXt only"):
        check("vgg11", channels=3, image_size=64, head_kind="cosine")
    with pytest.raises(ValueError, match="'vgg11' cannot be asked for attention maps: the last convolutional stage"):
        check("vgg11", channels=3, image_size=64, attention=True)


def test_a_network_that_only_torchvision_knows_is_unknown(monkeypatch):
    others = {name: row for name, row in NETWORKS.items() if name != "squeezenet1_1"}
    monkeypatch.setattr(limits, "NETWORKS", others)  # the table itself would not get its order back
    with pytest.raises(ValueError, match=r"no network 'squeezenet1_1' \(similar: squeezenet1_0"):
        check("squeezenet1_1", channels=3, image_size=32)
    build("squeezenet1_1", channels=3, image_size=32)


def test_a_network_that_only_the_table_knows_is_not_built(monkeypatch):
    monkeypatch.setattr(limits, "NETWORKS", NETWORKS | {"resnet99": NETWORKS["resnet18"]})
    check("resnet99", channels=3, image_size=32)
    with pytest.raises(ValueError, match=r"no network 'resnet99' \(similar: .*known are resnet32"):
        build("resnet99", channels=3, image_size=32)


@pytest.mark.parametrize(("name", "least"), [("alexnet", 63), ("squeezenet1_1", 17), ("googlenet", 15)])
def test_the_sizes_are_those_of_networks_with_weights(name, least):
    assert NETWORKS[name][0] == (range(least, LARGEST + 1),)
    with torch.no_grad():
        assert build(name, channels=1, image_size=least).dim > 0
        with pytest.raises(ValueError, match=f"'{name}' cannot take {least - 1} × {least - 1} images"):
            build(name, channels=1, image_size=least - 1)
