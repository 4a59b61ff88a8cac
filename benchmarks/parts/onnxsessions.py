"""ONNX Runtime by itself, without anything of the service."""

import os
from pathlib import Path

# Read when the package is imported; without it, each session is reported to the package's makers.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

ERRORS_ONLY = 3  # of ONNX Runtime's log levels


def session(path: Path, *, threads: int, arena: bool = True, spin: int = 0) -> onnxruntime.InferenceSession:
    """A graph on the processor, computed by so many threads, which spin for ``spin`` µs before they sleep.

    ``arena`` is ONNX Runtime's default.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if spin:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(spin))
    else:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = options.enable_mem_pattern = arena
    options.log_severity_level = ERRORS_ONLY
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
