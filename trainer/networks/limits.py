"""What can be asked of each network: image sizes, kinds of heads, attention maps. Torch-free, for the API.

`table` holds what `tabulate` measured. `catalogue.build` does not look at it: what it refuses is the truth.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Literal, get_args

from trainer.networks.table import NETWORKS

HeadKind = Literal["linear", "cosine"]
HEAD_KINDS: tuple[HeadKind, ...] = get_args(HeadKind)
LARGEST = 1024  # pixels; the largest size that was tried, and that the API takes
# The networks of `families`.
KNOWN = "ResNet-32 and torchvision's ResNet, ResNeXt, Wide ResNet, RegNet, MobileNet, EfficientNet and ConvNeXt"


def names() -> tuple[str, ...]:
    """Every name that `check` knows, the default first."""
    return tuple(NETWORKS)


def check(
    name: str, *, channels: int, image_size: int, head_kind: HeadKind = "linear", attention: bool = False
) -> None:
    """Raise ValueError, with what is possible instead, if the network cannot take such images or have such heads.

    ``image_size`` is the height and the width, in pixels. With ``attention``, the error is also raised for a network
    that cannot give Grad-CAM maps.
    """
    check_form(channels=channels, image_size=image_size)
    if name not in NETWORKS:
        raise unknown(name, list(NETWORKS))
    sizes, least = NETWORKS[name]
    check_heads(name, head_kind, known=least is not None)
    if not any(image_size in some for some in sizes):
        raise ValueError(
            f"network {name!r} cannot take {image_size} × {image_size} images: height and width are "
            f"{in_words(sizes)} pixels"
        )
    if attention:
        _check_attention(name, image_size, least)


def in_words(sizes: Sequence[range]) -> str:
    """Progressions in words, like ``16 to 1,024 in steps of 16``, or ``221 to 224 or 445 to 448``."""
    return " or ".join(
        f"{some[0]:,} to {some[-1]:,}" + (f" in steps of {some.step}" if some.step > 1 else "") for some in sizes
    )


def check_form(*, channels: int, image_size: int) -> None:
    """Raise ValueError for images that no network takes."""
    if channels not in {1, 3}:
        raise ValueError(f"a network takes 1 channel (grey) or 3 (colour), got {channels}")
    if image_size < 1:
        raise ValueError(f"the image size is a positive number of pixels, got {image_size}")


def check_heads(name: str, head_kind: HeadKind, *, known: bool) -> None:
    """Raise ValueError for heads of no known kind, and for cosine ones on a network whose inside is not ``known``."""
    if head_kind not in HEAD_KINDS:
        raise ValueError(f"heads are {' or '.join(HEAD_KINDS)}, got {head_kind!r}")
    if head_kind == "cosine" and not known:
        raise ValueError(
            f"network {name!r} cannot have cosine heads: its last activation would have to be removed, and where that "
            f"is is known of {KNOWN} only"
        )


def unknown(name: str, names: Sequence[str]) -> ValueError:
    """The error for a network that is not among ``names``; it lists them, and first those that are close."""
    close = ", ".join(get_close_matches(name, names)) or "none is close"
    return ValueError(f"no network {name!r} (similar: {close}); known are {', '.join(names)}")


def _check_attention(name: str, image_size: int, least: int | None) -> None:
    if least is None:
        raise ValueError(
            f"network {name!r} cannot be asked for attention maps: the last convolutional stage, which Grad-CAM looks "
            f"at, is known of {KNOWN} only"
        )
    if image_size < least:
        raise ValueError(
            f"network {name!r} cannot be asked for attention maps of {image_size} × {image_size} images: its last "
            "stage has a single position there, and all maps of one position are the same; use an image_size of "
            f"{least} or more, or resnet32"
        )
