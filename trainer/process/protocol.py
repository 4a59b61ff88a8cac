"""What worker, fork server and training process agree on: bytes, files in the attempt's folder, exit statuses."""

import struct

FORK, LET_GO = b"f", b"g"
NUMBER = struct.Struct("=i")  # a pid, or an exit status as `subprocess` gives it: negative for a signal
REFUSED = 3  # exit status of a child that knows why it can never succeed; failure.json says it
FILE = "checkpoint.safetensors"  # in the attempt's folder, the training process's latest
