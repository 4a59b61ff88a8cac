"""The environment that processes of the service are started with: ours, without ways to other people's modules.

`python -m` looks for modules in the working directory first, where somebody may keep a `trainer.py`, or a `queue.py`;
and `PYTHONPATH` comes before what is installed.
"""

import os
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("api", "losses", "storage", "trainer")


def inherited() -> dict[str, str]:
    """The variables for a process, and for all that it will start."""
    variables = {**os.environ, "PYTHONSAFEPATH": "1"}
    if entries := variables.pop("PYTHONPATH", ""):
        variables["PYTHONPATH"] = os.pathsep.join(filter(_is_harmless, entries.split(os.pathsep)))
    return variables


def _is_harmless(entry: str) -> bool:
    """Whether a folder of PYTHONPATH is one wherever we are, and holds no other modules by the names of ours."""
    folder = Path(entry)
    if not entry or not folder.is_absolute():
        return False
    if folder.resolve() == _ROOT:
        return True
    return not any((folder / name).exists() for package in _PACKAGES for name in (package, f"{package}.py"))
