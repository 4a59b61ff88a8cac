"""Which errors are want of memory, and in whose words."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from storage.errors import BatchInvalid
from storage.settings import Settings
from trainer.process.resources import shortage

ROOT = str(Path(__file__).resolve().parents[3])
FREE, BOUND = Settings(), Settings(training_memory_bytes=1 << 30, training_gpu_share=0.5)


def raised(by) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        by()
    return caught.value


def test_what_torch_says_about_a_tensor_that_is_too_large_is_understood() -> None:
    error = raised(lambda: torch.empty(1 << 60, dtype=torch.uint8))
    assert isinstance(error, RuntimeError)
    assert "this machine has left" in str(shortage(error, FREE))
    assert "the 1024 MiB it is allowed" in str(shortage(error, BOUND))


def test_so_is_what_python_says() -> None:
    assert "ACCRETE_TRAINING_MEMORY_BYTES" in str(shortage(raised(lambda: bytearray(1 << 60)), BOUND))
    assert "ACCRETE" not in str(shortage(raised(lambda: bytearray(1 << 60)), FREE))
    assert shortage(OSError(errno.ENOMEM, "Cannot allocate memory"), FREE)


def test_a_gpu_has_a_bound_of_its_own() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    assert "50% of the GPU's memory" in str(shortage(error, BOUND))
    assert "raise ACCRETE_TRAINING_GPU_SHARE" in str(shortage(error, BOUND))
    assert "ACCRETE" not in str(shortage(error, FREE))


def test_what_may_have_other_reasons_counts_only_under_a_bound() -> None:
    error = RuntimeError("could not create a primitive")
    assert shortage(error, FREE) is None
    assert shortage(error, BOUND) is not None


def test_the_reason_of_a_reason_counts() -> None:
    error = ValueError("wrapped")
    error.__cause__ = MemoryError()
    assert shortage(error, FREE) is not None


@pytest.mark.parametrize(
    "other",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        RuntimeError("a task named 'could not create a primitive'"),
        OSError(errno.ENOSPC, "No space left on device"),
        BatchInvalid("out of memory.png: damaged"),
        ValueError("std::bad_alloc"),
    ],
    ids=repr,
)
def test_other_errors_are_none_of_it(other: Exception) -> None:
    assert shortage(other, BOUND) is None


# A process of its own, whose stacks and memory are no other test's: bounded to MARGIN more than it has filled.
BOUNDED = """
import sys, threading
import torch
from storage.settings import Settings
from trainer.process import resources

threads, margin, fill, beside = (int(word) for word in sys.argv[1:])
torch.set_num_threads(threads)
torch.ones(threads * resources._GRAIN).add_(1)
_, filled = resources._private_bytes()
resources.bound_memory(Settings(training_memory_bytes=filled + (margin << 20)), device=torch.device("cpu"))
end = threading.Event()
for _ in range(beside):
    threading.Thread(target=end.wait, daemon=True).start()
try:
    held = bytearray(fill << 20)
except MemoryError:
    print("too much")
else:
    print("filled", len(held) >> 20)
end.set()
"""


@pytest.mark.parametrize(
    ("threads", "fill", "beside", "said"),
    [
        (1, 250, 0, "filled 250"),  # what is reserved and empty does not count
        (1, 350, 0, "too much"),  # what was filled before does
        (16, 250, 16, "filled 250"),  # the stacks of the threads that decode, one for each of torch's, do not
    ],
)
def test_so_much_more_may_be_filled_as_the_bound_leaves(threads: int, fill: int, beside: int, said: str) -> None:
    command = [sys.executable, "-c", BOUNDED, str(threads), "300", str(fill), str(beside)]
    shell = ["sh", "-c", 'ulimit -s 8192; exec "$@"', "sh"]
    ended = subprocess.run([*shell, *command], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ended.stdout.strip() == said
