"""The device of an attempt."""

import torch

from storage.errors import Invalid


def chosen_device(wanted: str) -> torch.device:
    """The device a setting asks for; ``auto`` is the first GPU if there is one."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=wanted).device
    except (RuntimeError, AssertionError) as error:
        raise Invalid(f"ACCRETE_DEVICE is {wanted!r}, which cannot be used here: {error}") from error
