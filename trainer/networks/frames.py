"""Frames between `trainer.networks.computing` and the process that started it. Torch-free.

A frame is the length of a header, the header, which is a JSON object, and as many bytes as its ``bytes`` says.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any

Header = dict[str, Any]

LENGTH = struct.Struct("=I")  # of a header, in bytes


def encode(header: Mapping[str, Any], data_bytes: int = 0) -> bytes:
    """The beginning of a frame, after which ``data_bytes`` bytes follow."""
    text = json.dumps({**header, "bytes": data_bytes}).encode()
    return LENGTH.pack(len(text)) + text
