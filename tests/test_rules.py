"""The rules of `make check` fail on what they are meant to stop, and the tree keeps them."""

import ast
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOADING_RULE = ROOT / ".ci" / "unsafe_loads.py"
PACKAGES = ("accrete", "api", "trainer", "losses", "storage")


def banned_imports(source: str) -> subprocess.CompletedProcess[str]:
    """Run the bans of pyproject.toml on a snippet, as `make check` does."""
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    arguments = ["--select", "TID251", "--ignore-noqa", "--stdin-filename", "trainer/snippet.py", "-"]
    return subprocess.run([*ruff, *arguments], input=source, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "module", ["pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve"]
)
@pytest.mark.parametrize("form", ["import {}", "import {} as harmless", "from {} import load", "import {}  # noqa"])
def test_a_module_that_loads_pickles_cannot_be_imported(module: str, form: str) -> None:
    outcome = banned_imports(form.format(module) + "\n")
    assert outcome.returncode == 1
    assert "TID251" in outcome.stdout


@pytest.mark.parametrize(
    "source",
    [
        "import torch\n\nnetwork = torch.hub.load_state_dict_from_url('x')\n",
        "import torch\n\nnetwork = torch.jit.load('x')\n",
        "from torch.serialization import load\n",
        "import torch\n\nnetwork = torch.serialization.load('x')\n",
        "from pandas import read_pickle\n",
    ],
)
def test_a_function_that_unpickles_or_runs_an_archive_is_banned(source: str) -> None:
    assert "TID251" in banned_imports(source).stdout


def test_safe_formats_are_not_banned() -> None:
    outcome = banned_imports("import json\n\nimport numpy\nfrom safetensors.torch import load_file\n")
    assert outcome.returncode == 0, outcome.stdout


def loads_refused(tree: Path) -> subprocess.CompletedProcess[str]:
    """Run the loading rule on a folder, as `make check` does."""
    return subprocess.run([sys.executable, str(LOADING_RULE), str(tree)], capture_output=True, text=True, check=False)


WEIGHTS = "trainer/networks/weights.py"


@pytest.mark.parametrize(
    ("file", "source", "line"),
    [
        (WEIGHTS, "import torch\ntorch.load('x')", 2),
        (WEIGHTS, "import torch\ntorch.load('x', weights_only=False)", 2),
        (WEIGHTS, "import torch\nsafe = True\ntorch.load('x', weights_only=safe)", 3),
        (WEIGHTS, "import torch\ntorch.load('x', **{'weights_only': True})", 2),
        (WEIGHTS, "import torch as t\nt.load('x')", 2),
        (WEIGHTS, "import torch.nn\ntorch.load('x')", 2),
        (WEIGHTS, "import torch\nread = torch.load\nread('x')", 2),
        (WEIGHTS, "from torch import load as read\nread('x', weights_only=True)", 1),
        ("trainer/checkpoints.py", "import torch\ntorch.load('x', weights_only=True)", 2),
        ("tests/trainer/test_weights.py", "import torch\ntorch.load('x')", 2),
        ("trainer/learning/data.py", "import numpy as np\nnp.load('x', allow_pickle=True)", 2),
    ],
)
def test_a_load_that_may_unpickle_is_refused_with_its_place(tmp_path: Path, file: str, source: str, line: int) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(source)
    outcome = loads_refused(tmp_path)
    assert outcome.returncode == 1
    assert [finding.split(": ")[0] for finding in outcome.stdout.splitlines()] == [f"{file}:{line}"]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        (WEIGHTS, "import torch\ntorch.load('x', map_location='cpu', weights_only=True)"),
        ("trainer/learning/data.py", "import json\njson.load(open('x'))"),
        ("trainer/learning/data.py", "import numpy as np\nnp.load('x', allow_pickle=False)"),
    ],
)
def test_a_load_that_cannot_unpickle_is_accepted(tmp_path: Path, file: str, source: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(source)
    outcome = loads_refused(tmp_path)
    assert (outcome.returncode, outcome.stdout) == (0, "")


def test_nothing_in_the_tree_loads_a_pickle() -> None:
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "TID251", "--ignore-noqa", str(ROOT)]
    banned = subprocess.run(ruff, capture_output=True, text=True, check=False)
    assert banned.returncode == 0, banned.stdout
    loads = loads_refused(ROOT)
    assert loads.returncode == 0, loads.stdout


def broken_contracts(tree: Path) -> str:
    """What import-linter says of a tree under the contracts of pyproject.toml; empty if it keeps them."""
    linter = str(Path(sys.executable).parent / "lint-imports")
    command = [linter, "--no-cache", "--no-logo"]
    environment = {"PYTHONPATH": str(tree)}  # before the installed packages, which an editable install puts on the path
    outcome = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    return "" if outcome.returncode == 0 else outcome.stdout + outcome.stderr


def rooms() -> Iterator[str]:
    """Every module of ours that a contract names."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    for contract in contracts:
        layers = [name.strip() for layer in contract.get("layers", ()) for name in layer.split("|")]
        named = [f"{room}.{name}" for room in contract.get("containers", ()) for name in layers] or layers
        named += contract.get("source_modules", []) + contract.get("forbidden_modules", [])
        named += contract.get("protected_modules", []) + contract.get("allowed_importers", [])
        named += [end for line in contract.get("ignore_imports", ()) for end in line.split(" -> ")]
        yield from (name for name in named if "*" not in name and "." in name and name.split(".")[0] in PACKAGES)


@pytest.fixture
def small_tree(tmp_path: Path) -> Path:
    """The five packages with nothing in them but what api may import of trainer and losses."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    modules = {"api/__main__.py", "trainer/workers/tasks.py", "losses/strategies.py"}
    modules |= {f"{name.replace('.', '/')}/__init__.py" for name in {*PACKAGES, *rooms()} - {"api.__main__"}}
    for module in modules:
        (tmp_path / module).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / module).touch()
    (tmp_path / "losses/kernels.py").touch()
    (tmp_path / "api/permitted.py").write_text(
        "import losses\nimport losses.strategies\nimport storage\nimport trainer.recipes\n"
        "import trainer.networks.limits\nimport trainer.networks.manifest\nimport trainer.networks.pictures\n"
    )
    (tmp_path / "accrete/permitted.py").write_text("import api.client.client\nimport trainer.networks\n")
    (tmp_path / "trainer/recipes/__init__.py").write_text("import losses.kernels\nimport pydantic\n")
    (tmp_path / "trainer/networks/resnet.py").write_text("import math\nimport PIL\nimport torch\nimport torchvision\n")
    (tmp_path / "losses/distillation.py").write_text("import torch\n")
    return tmp_path


def test_the_permitted_imports_keep_the_contracts(small_tree: Path) -> None:
    assert broken_contracts(small_tree) == ""


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("trainer", "import api"),
        ("api", "import accrete"),
        ("accrete", "import sqlalchemy"),
        ("storage", "import api"),
        ("storage", "import trainer.recipes"),
        ("storage", "import torch"),
        ("losses", "import storage"),
        ("losses", "import numpy"),
        ("trainer/networks", "import numpy"),
        ("trainer/networks", "import storage"),
        ("trainer/networks", "import trainer.recipes"),
        ("trainer/networks", "import pydantic"),
        ("api", "import trainer.workers.tasks"),
        ("trainer/workers", "import torch"),
        ("api", "import losses.kernels"),
        ("api/routes", "import trainer.networks"),
        ("api/routes", "import trainer.networks.resnet"),
        ("api/routes", "import torch"),
        ("api/views", "import torchvision"),
    ],
)
def test_an_import_against_the_layout_breaks_a_contract(small_tree: Path, package: str, source: str) -> None:
    (small_tree / package / "offender.py").write_text(source + "\n")
    assert f"{package.replace('/', '.')}.offender" in broken_contracts(small_tree)


def test_the_tree_keeps_the_contracts() -> None:
    assert broken_contracts(ROOT) == ""


def imported_names(*files: Path) -> set[str]:
    """Full names that these modules import, wherever in the module they do."""
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    whole = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return whole | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


@pytest.mark.parametrize(
    ("package", "permitted"),
    [
        ("losses", ("losses", "torch")),
        ("trainer/networks", ("trainer.networks", "torch", "torchvision", "PIL", "safetensors")),
    ],
)
def test_a_package_that_must_stand_alone_imports_nothing_else(package: str, permitted: tuple[str, ...]) -> None:
    # The contracts list what is forbidden; a dependency that nobody thought of shows here.
    names = imported_names(*(ROOT / package).rglob("*.py"))
    foreign = {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}
    assert {name for name in foreign if not f"{name}.".startswith(tuple(f"{root}." for root in permitted))} == set()
    assert "torch" in foreign


def test_trainer_itself_imports_nothing() -> None:
    # It is run before trainer.networks, which has to work without the other requirements of the trainer.
    assert imported_names(ROOT / "trainer" / "__init__.py") == set()
