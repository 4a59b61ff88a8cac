"""The requirements of each part, and the lock files that pin them."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from storage.environment import TRAINING_PACKAGES

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = sorted(path.name for path in ROOT.glob("requirements*.lock"))
INDEX = re.compile(
    r"index-url|--(default-)?index\b|find-links|trusted-host|\[\[?tool\.uv|(PIP|UV)_\w*(INDEX|LINKS|HOST)"
)


def locked(name: str) -> list[Requirement]:
    """Pins of a lock file, some of them for some interpreters only; fails on a line that is no pin, hash or comment."""
    pins: list[Requirement] = []
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            continue
        pin, *hashes = re.split(r"\s+--hash=", line.strip())
        assert hashes, f"{name}: no hash beside {pin}"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in hashes), pin
        pins.append(Requirement(pin))
        assert pins[-1].url is None, f"{name}: {pin} names a place"
        assert re.fullmatch(r"==[^*,]+", str(pins[-1].specifier)), f"{name}: {pin} is no exact pin"
    return pins


def installed_by(name: str, **environment: str) -> dict[str, str]:
    """Version by project name that a lock file gives one environment, this one unless told."""
    chosen = [pin for pin in locked(name) if pin.marker is None or pin.marker.evaluate(environment)]
    versions = {str(canonicalize_name(pin.name)): next(iter(pin.specifier)).version for pin in chosen}
    assert len(versions) == len(chosen), f"{name}: two pins of one project"
    return versions


def extra(name: str) -> list[Requirement]:
    """What an extra adds to the dependencies."""
    return [Requirement(line) for line in PYPROJECT["project"]["optional-dependencies"][name]]


API = [Requirement(line) for line in PYPROJECT["project"]["dependencies"]]
WORKER, DEMO = extra("worker"), extra("demo")
BUILD = [Requirement(line) for line in PYPROJECT["dependency-groups"]["build"]]
DEVELOPMENT = [Requirement(line) for line in PYPROJECT["dependency-groups"]["dev"]]


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [
        ("requirements-api.lock", API + BUILD),
        ("requirements-worker.lock", API + WORKER + BUILD),
        ("requirements.lock", API + WORKER + DEMO + BUILD),
        ("requirements-dev.lock", API + WORKER + DEMO + BUILD + DEVELOPMENT),
    ],
)
def test_every_requirement_is_pinned_within_its_range(lock: str, requirements: list[Requirement]) -> None:
    versions = installed_by(lock)
    for requirement in requirements:
        if requirement.marker is None or requirement.marker.evaluate():
            assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize(("platform", "machine"), [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")])
def test_an_installation_with_more_parts_changes_no_version(python: str, platform: str, machine: str) -> None:
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.4",
        "sys_platform": platform,
        "platform_machine": machine,
    }
    api, worker, runtime, development = (
        installed_by(name, **environment)
        for name in ("requirements-api.lock", "requirements-worker.lock", "requirements.lock", "requirements-dev.lock")
    )
    assert api.items() < worker.items() < runtime.items() < development.items()
    assert "scikit-learn" in runtime.keys() - worker.keys()
    assert "pytest" in development.keys() - runtime.keys()


def test_the_api_installs_nothing_of_the_worker_nor_a_library_of_cuda() -> None:
    names = {str(canonicalize_name(pin.name)) for pin in locked("requirements-api.lock")}
    assert {"onnxruntime", "fastapi", "celery", "matplotlib"} <= names
    assert names.isdisjoint(canonicalize_name(requirement.name) for requirement in WORKER + DEMO)
    assert not [name for name in names if name.startswith(("nvidia-", "cuda-", "triton", "torch", "scipy"))]


def test_a_worker_looks_for_every_package_that_its_extra_installs() -> None:
    assert {requirement.name for requirement in WORKER} == set(TRAINING_PACKAGES)


def test_no_extra_is_looked_for_in_the_index_where_another_project_has_our_name() -> None:
    listed = [line for lines in PYPROJECT["project"]["optional-dependencies"].values() for line in lines]
    assert "accrete" not in {Requirement(line).name for line in listed}


def test_serving_with_torch_takes_the_builds_of_the_worker() -> None:
    serving = set(map(str, extra("torch-serving")))
    assert serving < set(map(str, WORKER))
    assert {Requirement(one).name for one in serving} == {"torch", "torchvision", "safetensors"}


def test_the_environment_of_this_run_is_the_locked_one() -> None:
    expected = installed_by("requirements-dev.lock")
    # A build for one accelerator calls itself 2.14.1+cu130: the same release.
    assert {name: version(name).split("+")[0] for name in expected} == expected


@pytest.mark.parametrize(
    "file",
    [*LOCKS, "pyproject.toml", "Makefile", "Dockerfile", "docker-compose.yml"],
)
def test_no_file_names_an_index(file: str) -> None:
    assert INDEX.search((ROOT / file).read_text(encoding="utf-8")) is None


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.org/simple",
        "--extra-index-url=https://example.org/cpu",
        "-i x --trusted-host example.org",
        "ENV PIP_INDEX_URL=https://example.org",
        "ENV UV_DEFAULT_INDEX=x",
        "[[tool.uv.index]]",
    ],
)
def test_an_index_would_be_noticed(line: str) -> None:
    assert INDEX.search(line)
