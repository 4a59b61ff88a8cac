"""Runs in processes of their own: how each can end, and that none outlives who started it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.trainer.experiments.pictures import tasks_of
from trainer.experiments import results
from trainer.experiments.data import tasks
from trainer.experiments.plan import describe
from trainer.experiments.runs.children import perform_all
from trainer.experiments.runs.process import ORDER
from trainer.experiments.runs.run import Order

TASKS = tasks_of(2, 2)


def order(out: Path, strategy: str, *, epochs: int = 1) -> Order:
    recipe = {"epochs": epochs, "minibatch": 8}
    setting = describe(TASKS, network="resnet32", memory=None, recipe=recipe, weights_folder=out)
    tasks.save(out / "tasks", TASKS)
    return Order(setting.run(strategy, 0), out / "tasks", out, "cpu", 1, out)


def test_each_end_is_told_for_what_it_is_and_none_holds_up_the_others(tmp_path):
    crashing, damaged, elsewhere = (order(tmp_path, name) for name in ("freeze", "lwf", "joint"))
    damaged.folder.task(0).mkdir(parents=True)
    (damaged.folder.task(0) / "version.json").write_text(json.dumps({"format": 99}))
    results.append(damaged.results, {"run": damaged.run.digest, "task": 0})
    told: dict[str, list[Mapping[str, Any]]] = {}
    with elsewhere.folder.alone():
        failed = perform_all(
            [replace(crashing, tasks=tmp_path / "absent"), damaged, elsewhere],
            devices=["cpu"],
            jobs=2,
            tell=lambda asked, message: told.setdefault(asked.run.strategy, []).append(message),
        )
    reasons = {strategy: messages[-1]["reason"] for strategy, messages in told.items()}
    assert reasons["joint"] == "another process works on it"
    log = crashing.folder.path / "crash.log"
    assert reasons["freeze"].startswith("ended early (exit status 1): ")
    assert reasons["freeze"].endswith(f"all of it is in {log}")
    assert "Traceback" in log.read_text()
    assert reasons["lwf"].endswith("remove this folder and start again")
    assert failed == 2


def test_a_run_ends_with_who_started_it(tmp_path):
    """A process that is killed cannot end its children, but its end of their standard input closes."""
    asked = order(tmp_path, "lwf", epochs=2000)
    with subprocess.Popen(
        [sys.executable, "-m", "trainer.experiments.runs.process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(ORDER.dump_json(asked) + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["kind"] == "epoch"
        process.stdin.close()
        assert process.wait(timeout=60) == 77
    assert not asked.folder.has(0)
