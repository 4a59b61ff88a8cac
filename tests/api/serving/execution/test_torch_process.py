"""Versions that a process of its own computes: what it answers, what it survives, and what is left of it."""

import gc
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from api.serving.execution import torch_program
from api.serving.execution.torch_process import (
    TorchExecution,
    TorchProcess,
    TorchProcessError,
    cuda_devices,
    is_available,
)
from tests.api.worlds import eventually
from trainer.networks import EvaluationTransform, build, load_version, write_version

ROOT = Path(__file__).parents[4]
SIZE = 16
# A fresh interpreter, without what the package around the module imports.
PRELUDE = f"""
import sys, types
from pathlib import Path
import numpy as np
import api.serving
package = types.ModuleType("api.serving.execution")
package.__path__ = [{str(ROOT / "api" / "serving" / "execution")!r}]
sys.modules["api.serving.execution"] = package
from api.serving.execution.torch_process import TorchProcess
process = TorchProcess("cpu", 1)
execution = process.open(Path(sys.argv[1]))
"""


def written(folder: Path, *, name: str = "resnet32", seed: int = 0, classes: int = 3) -> Path:
    """A version whose probabilities are neither 0 nor 1."""
    torch.manual_seed(seed)
    network = build(name, channels=3, image_size=SIZE, task_sizes=[classes])
    torch.set_num_threads(1)
    for _ in range(8):  # so that the running statistics fit
        network(torch.rand(8, 3, SIZE, SIZE))
    for weight in network.heads.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    folder.mkdir(parents=True)
    transform = EvaluationTransform(SIZE, 3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    labels = [str(number) for number in range(classes)]
    write_version(folder, network.eval(), transform=transform, manifest={"tasks": [labels]})
    return folder


def pixels(images: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (images, 3, SIZE, SIZE), dtype=np.uint8)


def floats(images: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((images, 3, SIZE, SIZE), dtype=np.float32)


def expected(folder: Path, array: np.ndarray) -> np.ndarray:
    return load_version(folder).probabilities_of(torch.from_numpy(array.copy())).numpy()


def has_ended(pid: int | None) -> bool:
    assert pid is not None
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def script(text: str, folder: Path) -> list[str]:
    return [sys.executable, "-c", PRELUDE + text, str(folder)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("versions") / "first")


@pytest.fixture(scope="module")
def process() -> Iterator[TorchProcess]:
    process = TorchProcess("cpu", 1)
    yield process
    process.stop()


@pytest.fixture
def execution(process: TorchProcess, folder: Path) -> Iterator[TorchExecution]:
    execution = process.open(folder)
    yield execution
    execution.close()


def test_it_answers_as_the_network_itself(folder, execution):
    assert (execution.classes, execution.channels, execution.image_size) == (3, 3, SIZE)
    packed = pixels(4, seed=3).transpose(0, 2, 3, 1)
    last = np.ascontiguousarray(packed).transpose(0, 3, 1, 2)  # channels last in memory
    given = [pixels(1), floats(5), pixels(3, seed=1), floats(2, seed=2), last, pixels(0), pixels(40, seed=4)]
    found = execution.probabilities(given)
    assert [array.dtype for array in found] == [np.float32] * len(given)
    for array, probabilities in zip(given, found, strict=True):
        assert probabilities.shape == (len(array), 3)
        np.testing.assert_allclose(probabilities, expected(folder, array), atol=1e-6)
    assert found[-1].std(axis=0).max() > 1e-3  # the images are told apart
    for one in given[:3]:
        np.testing.assert_allclose(execution.probabilities([one])[0], expected(folder, one), atol=1e-6)


def test_nothing_to_compute_is_answered(execution):
    assert execution.probabilities([]) == []
    assert execution.probabilities([floats(0)])[0].shape == (0, 3)


def test_a_grey_network_that_has_cosine_heads(process, tmp_path):
    torch.manual_seed(1)
    network = build("resnet32", channels=1, image_size=SIZE, task_sizes=[2, 3], head_kind="cosine").eval()
    transform = EvaluationTransform(SIZE, 1, mean=(0.5,), std=(0.25,))
    write_version(tmp_path, network, transform=transform, manifest={"tasks": [["a", "b"], ["c", "d", "e"]]})
    execution = process.open(tmp_path)
    given = floats(4)[:, :1]
    np.testing.assert_allclose(execution.probabilities([given])[0], expected(tmp_path, given), atol=1e-6)


def test_one_process_computes_several_versions_for_several_threads(process, tmp_path):
    folders = [written(tmp_path / str(seed), seed=seed, classes=2 + seed) for seed in range(2)]
    executions = [process.open(folder) for folder in folders]
    answers = [expected(folder, pixels(3)) for folder in folders]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda n: executions[n % 2].probabilities([pixels(3)])[0], range(30)))
    for n, probabilities in enumerate(found):
        np.testing.assert_allclose(probabilities, answers[n % 2], atol=1e-6)
    assert len([child for child in psutil.Process().children() if child.pid == process.pid]) == 1


@pytest.mark.parametrize(
    "array", [pixels(2)[0], pixels(2)[:, :1], pixels(2)[:, :, :8], floats(2).astype(np.float64)], ids=lambda a: a.shape
)
def test_other_arrays_are_refused(process, execution, array):
    pid = process.pid
    with pytest.raises(ValueError, match=r"expected uint8 or float32 \[n, \*\(3, 16, 16\)\], got"):
        execution.probabilities([pixels(1), array])
    assert process.pid == pid


def test_a_process_that_was_killed_is_started_again_with_the_versions_it_needs(process, tmp_path, caplog):
    folder = written(tmp_path / "version", seed=5)
    first, second = process.open(folder), process.open(folder)
    answer = expected(folder, pixels(2))
    shutil.rmtree(folder)  # as the loader does
    for _ in range(2):
        killed = process.pid
        os.kill(killed, signal.SIGKILL)
        for execution in (first, second):
            np.testing.assert_allclose(execution.probabilities([pixels(2)])[0], answer, atol=1e-6)
        assert process.pid != killed
        assert has_ended(killed)
    assert "has ended with status -9: another is started" in caplog.text


def test_a_process_that_dies_at_every_computation_is_an_error(process, execution, monkeypatch):
    before = torch_program.TorchProgram.ask

    def kill_first(program, order, arrays=()):
        if order["order"] == "compute":
            os.kill(program.pid, signal.SIGKILL)
            killed.append(program.pid)
        return before(program, order, arrays)

    killed: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(torch_program.TorchProgram, "ask", kill_first)
        with pytest.raises(TorchProcessError, match="the torch process of cpu has ended with status -9"):
            execution.probabilities([pixels(1)])
    assert len(set(killed)) == 2
    assert execution.probabilities([pixels(1)])[0].shape == (1, 3)


def test_a_process_that_hangs_is_killed_and_reported(process, execution, monkeypatch):
    hanging = process.pid
    os.kill(hanging, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(torch_program, "ANSWER_SECONDS", 0.5)
        began = time.monotonic()
        with pytest.raises(TorchProcessError, match=r"has not answered for 0\.5 s and was killed"):
            execution.probabilities([pixels(500)])  # more than a pipe holds
        assert time.monotonic() - began < 10
    assert has_ended(hanging)
    assert execution.probabilities([pixels(1)])[0].shape == (1, 3)


def test_a_start_that_takes_too_long_is_reported(folder, monkeypatch):
    process = TorchProcess("cpu", 1)
    with monkeypatch.context() as patch:
        patch.setattr(torch_program, "START_SECONDS", 0.01)
        with pytest.raises(TorchProcessError, match=r"has not answered for 0\.01 s"):
            process.open(folder)
    assert has_ended(process.pid)
    assert process.open(folder).classes == 3
    process.stop()


def test_a_signal_to_the_whole_group_does_not_end_it(process, execution):
    pid = process.pid
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
        execution.probabilities([pixels(1)])
    assert process.pid == pid


def test_a_device_that_cannot_be_used_is_a_clear_error(folder):
    process = TorchProcess("cuda:77", 1)
    for _ in range(2):
        with pytest.raises(TorchProcessError, match=r"^cuda:77 cannot be used: "):
            process.open(folder)
        assert has_ended(process.pid)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where executions keep their files."""
    (place := tmp_path / "kept").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


@pytest.mark.parametrize("damage", ["weights", "no weights", "manifest", "no manifest"])
def test_a_damaged_folder_is_a_clear_error(execution, folder, tmp_path, kept, damage):
    process = execution._process
    copy = shutil.copytree(folder, tmp_path / "copy")
    weights, manifest = copy / "weights.safetensors", copy / "version.json"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    said = {"weights": "weights.safetensors is damaged: SHA-256", "manifest": "Expecting value"}
    match damage:
        case "weights":
            weights.write_bytes(content)
        case "no weights":
            weights.unlink()
        case "manifest":
            manifest.write_text("no JSON")
        case _:
            manifest.unlink()
    pid = process.pid
    with pytest.raises(TorchProcessError, match=said.get(damage, "FileNotFoundError: .*(weights|version)")):
        process.open(copy)
    assert list(kept.iterdir()) == []
    assert execution.probabilities([pixels(1)])[0].shape == (1, 3)
    assert process.pid == pid


def test_what_fails_in_the_process_is_an_answer_and_not_its_end(process, execution):
    pid = process.pid
    program = process._running()
    with pytest.raises(TorchProcessError, match="no version 'nobody' is loaded"):
        program.ask({"order": "compute", "key": "nobody", "images": 1, "dtype": "uint8"}, [pixels(1)])
    with pytest.raises(TorchProcessError, match="RuntimeError: shape"):
        program.ask({"order": "compute", "key": execution._key, "images": 2, "dtype": "uint8"}, [pixels(1)])
    assert execution.probabilities([pixels(1)])[0].shape == (1, 3)
    assert process.pid == pid


@pytest.mark.parametrize("way", ["closed", "garbage", "garbage during a conversation"])
def test_a_version_that_nobody_needs_is_dropped_with_its_files(process, folder, execution, kept, way):
    doomed = process.open(folder)
    key = doomed._key
    assert len(list(kept.iterdir())) == 1
    if way == "closed":
        doomed.close()
        with pytest.raises(TorchProcessError, match="the version was closed"):
            doomed.probabilities([pixels(1)])
        doomed.close()
    elif way == "garbage":
        del doomed
    else:
        cycle = [doomed]
        cycle.append(cycle)
        del doomed, cycle
        with process._lock:
            gc.collect()
    assert eventually(lambda: not list(kept.iterdir()), seconds=10)
    execution.probabilities([pixels(1)])
    with pytest.raises(TorchProcessError, match="is loaded"):
        process._program.ask({"order": "compute", "key": key, "images": 1, "dtype": "uint8"}, [pixels(1)])


def test_dropping_frees_the_memory(process, tmp_path):
    folder = written(tmp_path / "version", name="resnet18")
    size = (folder / "weights.safetensors").stat().st_size
    seen = []
    for _ in range(5):
        execution = process.open(folder)
        execution.probabilities([pixels(4)])
        seen.append(psutil.Process(process.pid).memory_full_info().uss)
        execution.close()
    assert seen[-1] - seen[1] < size


def test_stopping_ends_the_process_and_a_conversation(folder):
    process = TorchProcess("cpu", 1)
    execution = process.open(folder)
    pid, many = process.pid, [np.repeat(pixels(100), 200, axis=0)]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(execution.probabilities, many)
        assert eventually(process._lock.locked)
        time.sleep(0.2)
        assert not waiting.done()
        began = time.monotonic()
        process.stop()
        assert time.monotonic() - began < 10
        with pytest.raises(TorchProcessError):
            waiting.result(10)
    assert has_ended(pid)
    for ask in (lambda: process.open(folder), lambda: execution.probabilities([pixels(1)])):
        with pytest.raises(TorchProcessError, match="the torch process of cpu was stopped"):
            ask()
    process.stop()


def test_a_process_that_was_never_needed_was_never_started():
    process = TorchProcess("cpu", 1)
    assert process.pid is None
    process.stop()
    assert process.pid is None


@pytest.mark.parametrize("work", ["pass", "execution.probabilities([np.zeros((20_000, 3, 16, 16), np.uint8)])"])
def test_it_ends_when_its_parent_is_killed(folder, tmp_path, work):
    text = f"print(process.pid, flush=True)\nwhile True: {work}\n"
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # what it keeps there stays
    command = script(text, folder)
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment, process_group=0) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.5)  # an idle one, or in the middle of a computation
        assert not has_ended(pid)
        parent.kill()
    assert eventually(lambda: has_ended(pid), seconds=5)


def test_its_parent_imports_no_torch(folder):
    text = """
execution.probabilities([np.zeros((2, 3, 16, 16), np.uint8)])
process.stop()
print(sorted(name for name in sys.modules if name.partition(".")[0] in {"torch", "torchvision", "safetensors"}))
"""
    asked = subprocess.run(script(text, folder), capture_output=True, text=True, cwd=ROOT, check=True)
    assert asked.stdout == "[]\n"
    assert asked.stderr == ""


def test_without_torch_the_error_says_how_to_install_it(folder, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not is_available()
    with pytest.raises(TorchProcessError, match=r"pip install '\.\[torch-serving\]'"):
        TorchProcess("cpu", 1).open(folder)


def test_where_no_gpu_is_nobody_is_asked(tmp_path, monkeypatch):
    assert is_available()
    monkeypatch.setattr(torch_program, "DEVICE_FILES", tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("asked"))
    (tmp_path / "nvidiactl").touch()
    assert cuda_devices() == 0


@pytest.mark.parametrize(
    ("module", "found"),
    [
        ("class cuda:\n  device_count = lambda: 3\nprint('noise')", 3),
        ("raise OSError('no driver')", 0),
        ("cuda = 0", 0),
    ],
)
def test_gpus_are_counted_by_torch_in_another_process(tmp_path, monkeypatch, module, found):
    (tmp_path / "nvidia3").touch()
    (tmp_path / "torch.py").write_text(module)
    monkeypatch.setattr(torch_program, "DEVICE_FILES", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert cuda_devices() == found


def test_a_finaliser_on_another_thread_waits_for_nobody(process, folder):
    doomed = [process.open(folder)]
    with process._lock:
        thread = threading.Thread(target=doomed.clear)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
