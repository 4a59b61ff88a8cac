"""Networks that Inductor compiled: what they answer, how they come into use, and what is left of them."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from api.serving.execution import plans as executions
from api.serving.execution.libraries import COMPILE_SECONDS, Compiler, Library, weights
from api.serving.execution.plans import COMPILED, SIZES, Plan, Planner
from storage.settings import Settings
from tests.api.conftest import SOURCE
from tests.api.serving.test_engine import CPU, loaded, some_pixels
from tests.api.serving.test_engine import SIZE as SIDE
from tests.api.worlds import eventually, picture, running

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")


@pytest.fixture(scope="module")
def made(compilation: tuple[Path, Future[Library | None] | None]) -> Path:
    """A folder with the library of `SOURCE`, compiled for these tests."""
    folder, compiling = compilation
    assert compiling is not None
    assert compiling.result(COMPILE_SECONDS) is not None
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(made, tmp_path / "libraries")


@pytest.fixture
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is compiled."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("compiled again"))


@pytest.fixture
def always_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled execution is the fastest wherever there is one."""
    monkeypatch.setattr(executions, "_fastest", lambda all_of_them, *_: (list(all_of_them)[-1], 1))


def compilers(folder: Path) -> list[psutil.Process]:
    """Processes that compile into a folder, and what they started."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in process.environ().get("TMPDIR", ""):
                found.append(process)
        except psutil.Error:  # ended meanwhile, or another user's
            continue
    return found


def test_the_library_is_all_that_is_left_in_the_folder(made):
    kept = {path.name for path in made.iterdir()}
    assert {path.suffix for path in made.iterdir()} == {".so", ""}
    assert len(kept) == 2
    assert "lock" in kept


def test_one_library_answers_for_every_version_of_its_make(tmp_path, folder, no_child, always_compiled):
    planner = Planner(2, Compiler(folder, callers=1))
    plans = []
    for seed in range(2):
        version = loaded(tmp_path / str(seed), seed=seed)
        expected = {n: version.probabilities_of(some_pixels(n)) for n in (1, 2, 5, 16, 40)}
        plans.append(plan := planner.plan(version, CPU))
        assert {name for name, _ in plan.chosen.values()} == {COMPILED}
        for n, probabilities in expected.items():
            assert torch.allclose(plan.probabilities(some_pixels(n)), probabilities, atol=1e-4)
    assert plans[0].make is plans[1].make
    differing = plans[0].probabilities(some_pixels(8)) - plans[1].probabilities(some_pixels(8))
    assert differing.abs().max() > 1e-2


def test_it_is_chosen_where_it_is_fastest_only(tmp_path, folder, monkeypatch):
    def last_at_sixteen(all_of_them: dict[str, object], _counts: object, sample: torch.Tensor) -> tuple[str, int]:
        return (COMPILED if len(sample) == SIZES[-1] else executions.EAGER), 1

    monkeypatch.setattr(executions, "_fastest", last_at_sixteen)
    plan = Planner(1, Compiler(folder, callers=1)).plan(loaded(tmp_path / "version"), CPU)
    assert [name for name, _ in plan.chosen.values()] == ["eager", "eager", COMPILED]


def test_threads_may_call_it_at_once(tmp_path, folder, always_compiled):
    version = loaded(tmp_path / "version")
    expected = [version.probabilities_of(some_pixels(4, seed=seed)) for seed in range(64)]
    plan = Planner(1, Compiler(folder, callers=2)).plan(version, CPU)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda seed: plan.probabilities(some_pixels(4, seed=seed)), range(64)))
    assert all(torch.allclose(*pair, atol=1e-4) for pair in zip(answers, expected, strict=True))


def test_it_computes_without_the_interpreter_lock(tmp_path, folder):
    version = loaded(tmp_path / "version")
    library = Compiler(folder, callers=1).at_hand(SOURCE)
    assert library is not None
    images = torch.rand(2000, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    inputs, is_over, counted = [images, *weights(version.network.backbone).values()], threading.Event(), 0

    def compute() -> None:
        library._features(inputs)  # one call, and nothing beside it that might let go of the lock
        is_over.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)  # who holds the lock keeps it, unless he lets go of it
    try:
        thread = threading.Thread(target=compute)
        thread.start()
        while not is_over.is_set():
            counted += 1
            time.sleep(0.001)
    finally:
        sys.setswitchinterval(interval)
    thread.join()
    assert counted > 5  # who holds the lock lets it count to two


def test_it_leaves_nothing_behind(tmp_path, folder, always_compiled):
    plan = Planner(1, Compiler(folder, callers=1)).plan(loaded(tmp_path / "version"), CPU)
    pixels, seen = some_pixels(64), []
    for _ in range(6):
        for _ in range(50):
            plan.probabilities(pixels)
        seen.append(psutil.Process().memory_full_info().uss)
    assert seen[-1] - seen[1] < 4 << 20


def test_a_damaged_library_is_not_loaded(folder, caplog):
    (path,) = folder.glob("*.so")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert Compiler(folder, callers=1).at_hand(SOURCE) is None
    assert "damaged" in caplog.text
    assert not path.exists()


def test_another_torch_does_not_use_it(folder, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    assert Compiler(folder, callers=1).at_hand(SOURCE) is None


@pytest.mark.parametrize(
    "other", [{"network": "resnet18"}, {"channels": 1}, {"image_size": 16}, {"head_kind": "cosine"}], ids=str
)
def test_another_make_does_not_use_it(folder, other):
    assert Compiler(folder, callers=1).at_hand(replace(SOURCE, **other)) is None


def test_without_a_compiler_nothing_is_compiled(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert Compiler(tmp_path / "libraries", callers=1).compile(SOURCE) is None
    assert "no C++ compiler no-such-compiler" in caplog.text


def test_what_cannot_be_compiled_says_why_and_leaves_nothing(tmp_path, caplog):
    folder = tmp_path / "libraries"
    assert Compiler(folder, callers=1).compile(replace(SOURCE, network="no-such-network")) is None
    assert "no network 'no-such-network'" in caplog.text
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_one_process_compiles_and_others_wait_for_it(folder, no_child):
    one, other = Compiler(folder, callers=1), Compiler(folder, callers=1)
    with one._locked() as is_ours, ThreadPoolExecutor(1) as pool:
        assert is_ours
        waiting = pool.submit(other.compile, SOURCE)
        time.sleep(0.2)
        assert not waiting.done()
        other.stop()
        assert waiting.result(60) is None
    assert Compiler(folder, callers=1).compile(SOURCE) is not None


def test_stopping_ends_a_compilation(tmp_path):
    folder = tmp_path / "libraries"
    compiler = Compiler(folder, callers=1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(compiler.compile, SOURCE)
        assert eventually(lambda: compilers(folder))
        process = compilers(folder)[0]
        assert eventually(lambda: os.sched_getscheduler(process.pid) == os.SCHED_IDLE)
        compiler.stop()
        assert waiting.result(60) is None
    assert compilers(folder) == []
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_who_is_killed_while_compiling_leaves_no_process_and_the_next_one_no_files(tmp_path):
    folder = tmp_path / "libraries"
    script = (
        "from pathlib import Path; from api.serving.execution.libraries import Compiler, Source; import sys\n"
        f"Compiler(Path(sys.argv[1]), callers=1).compile({SOURCE!r})"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(folder)])
    assert eventually(lambda: compilers(folder) and list(folder.glob("work-*")))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert eventually(lambda: not compilers(folder))
    assert list(folder.glob("work-*"))
    Compiler(folder, callers=1).compile(replace(SOURCE, network="no-such-network"))
    assert not list(folder.glob("work-*"))


def test_versions_in_service_go_over_to_it(made: Path, tmp_path: Path, settings_for, caplog, always_compiled):
    caplog.set_level("INFO")
    settings: Settings = settings_for(tmp_path, compile_after_seconds=0.1)
    with running(settings) as world:
        name = world.model(network=SOURCE.network, image_size=SOURCE.image_size, channels=SOURCE.channels)
        world.version(name, "cat", "dog")
        path = f"/v1/models/{name}/predictions"
        before = world.http.post(path, content=picture(1)).json()["predictions"][0]
        shutil.copytree(made, settings.libraries)  # what compiling it takes half a minute for
        assert COMPILED not in caplog.text
        asked = picture(1)
        assert eventually(lambda: world.http.post(path, content=asked).is_success and COMPILED in caplog.text)
        world.version(name, "emu", "fox")
        assert eventually(lambda: world.http.post(path, content=picture(1)).json()["version"] == 2)
        after = world.http.post(path, params={"version": 1}, content=picture(1)).json()["predictions"][0]
        assert [one["label"] for one in after] == [one["label"] for one in before]
        assert [one["probability"] for one in after] == pytest.approx([one["probability"] for one in before], abs=1e-4)


def test_a_plan_knows_whether_it_could_choose_it(tmp_path, folder, always_compiled):
    version = loaded(tmp_path / "version")
    compiler = Compiler(folder, callers=1)
    library = compiler.at_hand(SOURCE)
    assert library is not None
    planner = Planner(1)
    plan: Plan = planner.plan(version, CPU)
    assert not plan.knows_library
    better = planner.with_library(plan, library)
    assert better.knows_library
    assert {name for name, _ in better.chosen.values()} == {COMPILED}
    assert torch.allclose(better.probabilities(some_pixels(5)), plan.probabilities(some_pixels(5)), atol=1e-4)
    next_one = planner.plan(loaded(tmp_path / "next", seed=1), CPU)
    assert next_one.knows_library
    assert next_one.chosen == better.chosen
