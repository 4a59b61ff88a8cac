"""Libraries that Inductor compiled ahead of time: kept in a folder, loaded, and called without the interpreter lock."""

import ctypes
import fcntl
import hashlib
import json
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from api.serving.execution.frozen import Forward
from storage.blobs.store import file_digest
from trainer.networks import IncrementalNetwork

COMPILE_SECONDS = 600  # at most
LAST_WORDS = 2_000  # characters of a failed compilation's error output that are logged

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """What a library is compiled from."""

    network: str
    channels: int
    image_size: int
    head_kind: str


class Library:
    """A compiled backbone of one make, for the weights of any version of it.

    torch's own loader holds the interpreter lock while it computes, which would stop all other threads. So the
    library's C interface (torch/csrc/inductor/aoti_runtime/interface.h) is called by ctypes, which releases the lock.
    """

    def __init__(self, path: Path, *, callers: int) -> None:
        """Load the library for ``callers`` threads that call it at once; raises `OSError` and `RuntimeError`."""
        self._library = ctypes.CDLL(str(path))
        self._container = ctypes.c_void_p()
        create = self._library.AOTInductorModelContainerCreateWithDevice
        if create(ctypes.byref(self._container), ctypes.c_size_t(callers), b"cpu", None):
            raise RuntimeError(f"{path} could not be loaded")
        self._run = self._library.AOTInductorModelContainerRun

    def forward(self, network: IncrementalNetwork) -> Forward:
        """A function for the logits of a network in evaluation mode, whose weights are channels-last in memory."""
        given = list(weights(network.backbone).values())

        def forward(images: Tensor) -> Tensor:
            return network.logits(self._features([images, *given]))

        return forward

    def _features(self, inputs: list[Tensor]) -> Tensor:
        handles = [_pointer(handle, None) for handle in torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors(inputs)]
        given, made = (ctypes.c_void_p * len(handles))(*handles), (ctypes.c_void_p * 1)()
        # The call takes ownership of the handles, even if it fails.
        if self._run(self._container, given, ctypes.c_size_t(len(handles)), made, ctypes.c_size_t(1), None, None):
            raise RuntimeError("the compiled network failed; its reason is in the error output")
        return torch._C._aoti.alloc_tensor_by_stealing_from_void_ptr(_capsule(made[0], None, None))


class Compiler:
    """The compiled libraries of this machine: those in the folder, and those that are compiled on request."""

    def __init__(self, folder: Path, *, callers: int, yields: bool = True) -> None:
        """Keep the libraries in ``folder``, which other processes may use at the same time.

        ``callers`` threads call a library at once. With ``yields`` a compilation takes only idle processor time.
        """
        self._folder, self._callers, self._yields = folder, callers, yields
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End a compilation that is under way."""
        self._stopped.set()

    def at_hand(self, source: Source) -> Library | None:
        """The library of a source, if it was compiled before, for this processor and by this torch; else None."""
        for path in self._folder.glob(f"{_stem(source)}-*.so"):
            if path.stem.rpartition("-")[2] != file_digest(path):
                log.warning("%s is damaged, and deleted", path)
                path.unlink(missing_ok=True)
                continue
            try:
                return Library(path, callers=self._callers)
            except (OSError, RuntimeError) as error:
                log.warning("%s is not used: %s", path, error)
        return None

    def compile(self, source: Source) -> Library | None:
        """The library of a source, compiled if necessary; None if that fails, as the log then says, or after `stop`."""
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            log.info("%s is not compiled: there is no C++ compiler %s", source.network, compiler)
            return None
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._locked() as is_ours:
            if not is_ours:
                return None
            if (library := self.at_hand(source)) is not None:  # another process was first
                return library
            for rest in self._folder.glob("work-*"):  # of processes that were killed
                shutil.rmtree(rest)
            work = self._folder / f"work-{os.getpid()}"
            work.mkdir()
            try:
                return self._made(source, work)
            finally:
                shutil.rmtree(work)

    def _made(self, source: Source, work: Path) -> Library | None:
        began, target = time.monotonic(), work / "made.so"
        status = self._run_compiler(source, target, work)
        if status is None:
            return None
        if status or not target.exists():
            said = (work / "stderr.log").read_text(errors="replace")[-LAST_WORDS:]
            log.warning("%s could not be compiled (exit status %d): %s", source.network, status, said)
            return None
        stem = _stem(source)
        final = self._folder / f"{stem}-{file_digest(target)}.so"
        target.replace(final)
        for path in self._folder.glob(f"{stem.rpartition('-')[0]}-*.so"):  # by another torch, or for another processor
            if path != final:
                path.unlink()
        log.info("%s was compiled in %.0f s", source.network, time.monotonic() - began)
        return self.at_hand(source)

    def _run_compiler(self, source: Source, target: Path, work: Path) -> int | None:
        """Exit status of the compiler; None if it was killed, after `stop` or because it took too long."""
        environment = os.environ | {
            "TMPDIR": str(work),
            "TORCHINDUCTOR_CACHE_DIR": str(work / "cache"),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        with (work / "stderr.log").open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "api.serving.execution"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
                process_group=0,  # not a session: across sessions, Linux does not compare priorities
            )
        assert process.stdin is not None
        end = time.monotonic() + COMPILE_SECONDS
        try:
            asked = {**asdict(source), "target": str(target), "yields": self._yields}
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
            while process.poll() is None:
                if self._stopped.wait(0.2):
                    return None
                if time.monotonic() > end:
                    log.warning("%s is not compiled: it took more than %d s", source.network, COMPILE_SECONDS)
                    return None
            return process.returncode
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and the processes it started
            process.wait()
            process.stdin.close()

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Wait for the lock, as one process compiles at a time; False if `stop` was called before it was free."""
        with (self._folder / "lock").open("wb") as lock:
            while not self._stopped.is_set():
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    yield True
                    return
                self._stopped.wait(0.5)
            yield False


def _stem(source: Source) -> str:
    """First part of a library's file name: the source, and a digest of it, of torch and of the processor."""
    made_for = json.dumps([asdict(source), torch.__version__, platform.machine(), _instruction_sets()])
    digest = hashlib.sha256(made_for.encode()).hexdigest()[:16]
    return f"{source.network}-{source.channels}x{source.image_size}-{source.head_kind}-{digest}"


def _instruction_sets() -> str:
    """Instruction sets of this processor, as Linux lists them: a library compiled here may use all of them."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return torch.backends.cpu.get_cpu_capability()


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_capsule = ctypes.pythonapi.PyCapsule_New
_capsule.restype, _capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


def weights(backbone: nn.Module) -> dict[str, Tensor]:
    """The floating-point parameters and buffers of a backbone, by name, in the order in which a library takes them."""
    named = [*backbone.named_parameters(), *backbone.named_buffers()]
    return {name: tensor for name, tensor in named if tensor.is_floating_point()}
