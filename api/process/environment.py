"""The environment variables of the service's processes: ours, but so that no foreign module is imported.

`python -m` looks for modules in the working directory first, which may hold a `trainer.py` or a `queue.py`. Folders of
`PYTHONPATH` come before installed packages.
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
    """Whether a folder of PYTHONPATH is absolute, and holds no foreign modules with the names of our packages."""
    folder = Path(entry)
    if not entry or not folder.is_absolute():
        return False
    if folder.resolve() == _ROOT:
        return True
    return not any((folder / name).exists() for package in _PACKAGES for name in (package, f"{package}.py"))
