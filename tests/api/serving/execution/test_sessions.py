"""ONNX Runtime as the execution of versions: its answers, its memory, its threads, and that it tells nobody."""

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from api.serving.execution import CPU, Runtime, memory
from api.serving.execution.sessions import Session
from tests.api.serving.test_engine import by_torch, scaled, some_pixels, written


@pytest.mark.parametrize("network", ["resnet32", "resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("head", ["linear", "cosine"])
@pytest.mark.parametrize("threads", [1, 2])
def test_it_answers_as_the_network_itself(tmp_path, network, head, threads):
    version = written(tmp_path, network=network, head=head)
    execution = Runtime(threads).open(tmp_path, CPU)
    assert isinstance(execution, Session)
    for images in (1, 2, 5, 16, 40):
        pixels = some_pixels(images, seed=images)
        expected = by_torch(version, pixels)
        assert np.allclose(execution.probabilities([pixels])[0], expected, atol=1e-5)
        assert np.allclose(execution.probabilities([scaled(pixels)])[0], expected, atol=1e-5)


def test_what_comes_together_is_answered_in_its_order(tmp_path):
    version = written(tmp_path)
    session = Session(tmp_path / "network.onnx", gpu=None, threads=1)
    pixels = [some_pixels(n, seed=n) for n in (2, 1, 3, 4)]
    mixed = [scaled(one) if place in {0, 2} else one for place, one in enumerate(pixels)]
    found = session.probabilities(mixed)
    assert [len(one) for one in found] == [2, 1, 3, 4]
    for one, given in zip(found, pixels, strict=True):
        assert np.allclose(one, by_torch(version, given), atol=1e-5)


def test_an_image_is_answered_alike_alone_and_among_others(tmp_path):
    written(tmp_path)
    session = Session(tmp_path / "network.onnx", gpu=None, threads=2)
    pixels = some_pixels(32)
    together = session.probabilities([pixels])[0]
    for place in range(32):
        assert np.allclose(session.probabilities([pixels[place : place + 1]])[0], together[place], atol=1e-6)


def test_several_threads_may_ask_one_session(tmp_path):
    version = written(tmp_path)
    session = Session(tmp_path / "network.onnx", gpu=None, threads=1)
    wrong: list[int] = []

    def ask(seed: int) -> None:
        pixels = some_pixels(1 + seed % 5, seed=seed)
        if not np.allclose(session.probabilities([pixels])[0], by_torch(version, pixels), atol=1e-5):
            wrong.append(seed)

    threads = [threading.Thread(target=ask, args=[seed]) for seed in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_graph_of_another_kind_or_none_at_all_is_refused(tmp_path):
    (tmp_path / "network.onnx").write_bytes(b"no graph")
    with pytest.raises(Exception, match=r"(?i)protobuf|parse|invalid|model"):
        Session(tmp_path / "network.onnx", gpu=None, threads=1)


def test_memory_comes_back_after_many_swaps(tmp_path):
    written(tmp_path, network="resnet18")

    def resident() -> int:
        return int(psutil.Process().memory_full_info().uss)

    before = 0
    session: Session | None = None
    for number in range(23):
        new = Session(tmp_path / "network.onnx", gpu=None, threads=1)
        new.probabilities([some_pixels(8)])
        session = new
        del new
        gc.collect()
        memory.give_back()
        if number == 2:
            before = resident()
    assert session is not None
    assert resident() - before < 45 << 20  # of twenty versions dropped since, not even one is left


def test_threads_end_with_their_session(tmp_path):
    written(tmp_path)
    before = psutil.Process().num_threads()
    sessions = [Session(tmp_path / "network.onnx", gpu=None, threads=3) for _ in range(4)]
    assert psutil.Process().num_threads() == before + 4 * 2  # the thread that asks is the third
    del sessions
    gc.collect()
    assert psutil.Process().num_threads() == before


QUIET = """
import os, sys, time
from pathlib import Path
import numpy as np
from api.serving.execution.sessions import Session
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
session = Session(Path(sys.argv[1]), gpu=None, threads=2)
session.probabilities([np.zeros((2, 3, 8, 8), np.uint8)])
time.sleep(2)
links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
opened = [os.readlink(link) for link in links if os.path.exists(link)]
assert not [one for one in opened if one.startswith("socket:")], opened
loaded = [name for name in ("torch", "torchvision", "safetensors", "onnx") if name in sys.modules]
assert not loaded, loaded
"""


@pytest.mark.parametrize("given", [None, "0"])
def test_nothing_is_told_to_anybody(tmp_path, given):
    written(tmp_path / "version")
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home), "TMPDIR": str(home)}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[4])} | ({"ORT_DISABLE_TELEMETRY": given} if given else {})
    done = subprocess.run(
        [sys.executable, "-c", QUIET, str(tmp_path / "version" / "network.onnx")],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in home.rglob("*")] == []
