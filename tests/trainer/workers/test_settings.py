"""A worker that is started with a setting it cannot use says which, in one line."""

import os
import subprocess
import sys

import pytest


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
