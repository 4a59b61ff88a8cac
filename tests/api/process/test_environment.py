"""What a process of the service inherits: no way to modules of the working directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from api.process.environment import inherited

ROOT = Path(__file__).parents[3]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody's working directory, with modules by the names of ours and of the standard library."""
    for name in ("trainer.py", "queue.py"):
        (tmp_path / name).write_text("raise RuntimeError('of the working directory')")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", ["", ":", ".", "{project}", "{project}/", ":{project}:sub", "{root}:{project}"])
def test_modules_of_the_working_directory_are_not_found(
    path: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", path.format(project=project, root=ROOT))
    inner = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'queue'], check=True)"  # as a child's child
    program = f"import queue, trainer, storage; {inner}; print(trainer.__file__, storage.__file__)"
    done = subprocess.run([sys.executable, "-c", program], env=inherited(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(ROOT / name / "__init__.py") for name in ("trainer", "storage")]


def test_other_folders_of_pythonpath_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "helper.py").touch()
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    assert inherited()["PYTHONPATH"] == f"{tmp_path}{os.pathsep}{ROOT}"
