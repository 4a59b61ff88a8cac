"""`python -m trainer.experiments` as a process of its own: what it needs, what it leaves, how it ends."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import psutil
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.trainer.experiments.pictures import files_of, write_tree
from trainer.experiments.__main__ import main

NEEDED = ("torch", "torchvision", "numpy", "pillow", "pydantic", "safetensors")
ROOT = Path(__file__).parents[3]
HIDING = """
import json, os, sys

class Hiding:
    def __init__(self, finders):
        self.finders = finders

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            return None
        return next((spec for finder in self.finders if (spec := finder.find_spec(name, path, target))), None)

    def find_distributions(self, *context):
        asked = [finder.find_distributions for finder in self.finders if hasattr(finder, "find_distributions")]
        return (found for find in asked for found in find(*context))

HIDDEN = frozenset(json.loads(os.environ["HIDDEN"]))
sys.meta_path[:] = [Hiding(list(sys.meta_path))]
"""


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write_tree(tmp_path / "data", files_of(0, 1, 2, 3, each=8))


def command(data: str, out: Path, *words: str, epochs: int = 1) -> list[str]:
    recipe = json.dumps({"epochs": epochs, "minibatch": 8, "learning_rate": 0.05})
    asked = ["--data", data, "--tasks", "2", "--memory", "2", "--recipe", recipe, "--threads", "1", "--devices", "cpu"]
    return [sys.executable, "-m", "trainer.experiments", *asked, "--out", str(out), *words]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", **more}


def ended(words: Sequence[str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, env=environment(**more), capture_output=True, text=True, timeout=120, check=False)


def others() -> list[str]:
    """Every installed module that belongs neither to what is needed nor to what that needs in turn."""
    known, waiting = set[str](), list(NEEDED)
    while waiting:
        if (name := canonicalize_name(waiting.pop())) in known:
            continue
        known.add(name)
        for line in distribution(name).requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    installed = packages_distributions()
    own = set(installed) & {"api", "losses", "storage", "trainer"}
    return sorted(
        module
        for module, owners in installed.items()
        if module not in own and not known.intersection(map(canonicalize_name, owners))
    )


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Sequence[str]], int]]:
    """The command within this process, which spares it the import of torch."""
    before = signal.getsignal(signal.SIGTERM)

    def run(words: Sequence[str]) -> int:
        monkeypatch.setattr(sys, "argv", list(words)[2:])
        try:
            return main()
        except SystemExit as ended:
            return int(ended.code or 0)

    yield run
    signal.signal(signal.SIGTERM, before)


def test_it_needs_six_packages_and_does_without_the_plots(tmp_path, data, in_process, capsys):
    (tmp_path / "hiding").mkdir()
    (tmp_path / "hiding" / "sitecustomize.py").write_text(HIDING)
    hidden = others()
    assert {"matplotlib", "sqlalchemy", "celery", "fastapi", "pydantic_settings", "sklearn", "scipy"}.issubset(hidden)
    bare = {"PYTHONPATH": f"{tmp_path / 'hiding'}{os.pathsep}{ROOT}", "HIDDEN": json.dumps(hidden)}
    proof = ended([sys.executable, "-c", "import scipy"], **bare)
    assert "No module named 'scipy'" in proof.stderr

    out = tmp_path / "out"
    asked = command(data, out, "--strategies", "lwf,lucir-bsr", "--jobs", "2")
    done = ended(asked, **bare)
    assert done.returncode == 0, done.stderr
    assert "no plots, as they need matplotlib" in done.stderr
    assert "lucir-bsr seed 0: task 2/2 done" in done.stderr
    assert not list(out.glob("*.png"))
    with (out / "results.csv").open(newline="") as file:
        rows = [(row["strategy"], row["task"]) for row in csv.DictReader(file)]
    assert rows == [("lucir-bsr", "0"), ("lucir-bsr", "1"), ("lwf", "0"), ("lwf", "1")]

    before = (out / "results.jsonl").read_bytes()
    assert in_process(asked) == 0  # with everything there is
    assert "2 of 2 runs are complete already" in capsys.readouterr().err
    assert (out / "results.jsonl").read_bytes() == before
    for name in ("accuracy", "forgetting", "imbalance"):
        assert (out / f"{name}.png").stat().st_size > 0
        assert f"({name}.png)" in (out / "results.md").read_text()
    assert not list(out.glob(".*"))

    (folder,) = (out / "runs").glob("lwf-seed0-*")
    shutil.rmtree(folder)
    assert in_process(asked) == 0
    said = capsys.readouterr().err
    assert "1 of 2 runs are complete already" in said
    assert "lwf seed 0: complete (1 of 1 runs)" in said
    assert [task.name for task in sorted(folder.glob("task-*"))] == ["task-00", "task-01"]
    after = (out / "results.jsonl").read_bytes()
    assert after.startswith(before)
    assert len(after.splitlines()) == 6
    with (out / "results.csv").open(newline="") as file:
        assert [(row["strategy"], row["task"]) for row in csv.DictReader(file)] == rows


@contextmanager
def interruptible() -> Iterator[None]:
    """Start processes that Ctrl-C ends: where these tests run in the background of a shell, it would be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_every_run_at_once_and_leaves_nothing_behind(tmp_path, data):
    out = tmp_path / "out"
    words = command(data, out, "--strategies", "finetune,lwf,joint", "--jobs", "2", epochs=2000)
    with interruptible(), subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        itself = psutil.Process(process.pid)
        eventually(lambda: len(itself.children()) == 2)
        children = itself.children()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert not any(child.is_running() for child in children)
    assert process.returncode == 130
    assert said.endswith("stopped; the same command goes on from here\n")
    assert "Traceback" not in said
    assert not list(out.glob(".*"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--strategies lwg", "error: no strategy 'lwg'; known are finetune,"),
        ("--strategies lwf --tasks 5", "error: 4 classes cannot be divided into 5 tasks"),
        ("--strategies lwf --recipe qick", "error: recipe: preset = 'qick': permitted is one of"),
        ("--strategies lwf --network resnet99", "error: no network 'resnet99' (similar: "),
        ("--strategies lwf --devices cuda:99", "error: --devices cuda:99: here are"),
        ("--strategies lwf,lwf", "--strategies: 'lwf,lwf': expected 'all' or names with commas between them"),
        ("--strategies lwf --memory many:3", "--memory: 'many:3': expected a number of exemplars"),
        ("--strategies lwf --recipe {epochs:3}", "expected the name of a preset or a JSON object"),
        ("--strategies lwf --seeds 0,-1", "--seeds: '0,-1': expected one or more whole numbers"),
    ],
)
def test_what_cannot_be_is_answered_with_what_can(tmp_path, data, in_process, capsys, *, words, said):
    assert in_process(command(data, tmp_path / "out", *words.split())) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def eventually(true: Callable[[], bool], *, seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
