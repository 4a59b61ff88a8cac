"""A worker that is started with a setting it cannot use, or where it cannot train, says so in one line."""

import os
import subprocess
import sys

import pytest

from storage.environment import TRAINING_PACKAGES


@pytest.mark.parametrize(
    "command",
    [["trainer.workers", "--hostname", "worker@here"], ["celery", "--app=trainer.workers.app", "worker"]],
    ids=["by its module", "by celery"],
)
def test_a_setting_that_cannot_be_used_is_named_without_a_traceback(command: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, "ACCRETE_LEASE_SECONDS": "soon", "ACCRETE_THREADS": "0"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 1
    message = next(line for line in ended.stderr.splitlines() if line.startswith("error: "))
    assert "ACCRETE_LEASE_SECONDS: " in message
    assert "ACCRETE_THREADS: " in message
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("package", TRAINING_PACKAGES)
def test_a_worker_that_could_not_train_says_what_to_install(package: str) -> None:
    run = f"import sys; sys.modules[{package!r}] = None; import trainer.workers.app"
    ended = subprocess.run(
        [sys.executable, "-c", run],
        env={**os.environ, "ACCRETE_REDIS_URL": "redis://127.0.0.1:1/0"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    needed = (
        f"error: training needs accrete[worker], and lacks {package}: pip install '.[worker]' in Accrete's checkout\n"
    )
    assert ended.stderr == needed
