"""What is installed and deployed: lock files, Makefile, compose file."""

import os
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from api.__main__ import GRACE_SECONDS
from storage.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
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


RUNTIME = [Requirement(line) for line in PYPROJECT["project"]["dependencies"]]
BUILD = [Requirement(line) for line in PYPROJECT["dependency-groups"]["build"]]
DEVELOPMENT = [Requirement(line) for line in PYPROJECT["dependency-groups"]["dev"]]


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [("requirements.lock", RUNTIME + BUILD), ("requirements-dev.lock", RUNTIME + BUILD + DEVELOPMENT)],
)
def test_every_requirement_is_pinned_within_its_range(lock: str, requirements: list[Requirement]) -> None:
    versions = installed_by(lock)
    for requirement in requirements:
        if requirement.marker is None or requirement.marker.evaluate():
            assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize(("platform", "machine"), [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")])
def test_development_changes_no_version_that_is_deployed(python: str, platform: str, machine: str) -> None:
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.4",
        "sys_platform": platform,
        "platform_machine": machine,
    }
    runtime = installed_by("requirements.lock", **environment)
    development = installed_by("requirements-dev.lock", **environment)
    assert runtime.items() <= development.items()
    assert "pytest" in development
    assert "pytest" not in runtime


def test_the_environment_of_this_run_is_the_locked_one() -> None:
    expected = installed_by("requirements-dev.lock")
    # A build for one accelerator calls itself 2.14.1+cu130: the same release.
    assert {name: version(name).split("+")[0] for name in expected} == expected


@pytest.mark.parametrize(
    "file",
    ["pyproject.toml", "requirements.lock", "requirements-dev.lock", "Makefile", "Dockerfile", "docker-compose.yml"],
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


@pytest.fixture(scope="module")
def compose() -> Any:
    """The compose file with its anchors resolved."""
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


def test_compose_starts_nothing_before_the_migrations_are_done(compose: Any) -> None:
    for name in ("api", "worker", "worker-gpu"):
        assert compose["services"][name]["depends_on"]["migrations"] == {"condition": "service_completed_successfully"}
    assert compose["services"]["migrations"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_compose_grants_the_time_to_drain_and_to_answer_what_is_in_flight(compose: Any) -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    granted = float(compose["services"]["api"]["stop_grace_period"].removesuffix("s"))
    assert granted >= defaults["drain_seconds"] + defaults["deadline_seconds"] + GRACE_SECONDS + 1


def test_compose_publishes_the_api_alone_and_on_this_machine_alone(compose: Any) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert list(published) == ["api"]
    assert all(port.startswith("127.0.0.1:") for port in published["api"])


def test_compose_asks_for_the_password_and_holds_none(compose: Any) -> None:
    for name, service in compose["services"].items():
        for key, value in (service.get("environment") or {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|KEY", key):
                is_path = key == "ACCRETE_ADMIN_KEY_FILE" and value == "/run/secrets/admin_key"
                assert is_path or value is None or value.startswith("${POSTGRES_PASSWORD:?"), f"{name}: {key}"
    assert compose["secrets"] == {"admin_key": {"file": "${ACCRETE_ADMIN_KEY:-./admin.key}"}}
    assert all(compose["services"][name]["secrets"] == ["admin_key"] for name in ("api", "worker", "migrations"))


def test_compose_starts_the_gpu_worker_on_demand_only(compose: Any) -> None:
    assert {name: s["profiles"] for name, s in compose["services"].items() if "profiles" in s} == {
        "worker-gpu": ["gpu"]
    }


@pytest.fixture
def make_on_a_fake_environment(tmp_path: Path) -> Any:
    """Run make with programs that write down how they were called in place of the installed ones."""
    recorder = '#!/bin/sh\nfor word in "$0" "$@"; do echo "word:$word"; done\nenv\n'
    folder = tmp_path / "environment"
    (folder / "bin").mkdir(parents=True)
    for program in ("python", "accrete"):
        (folder / "bin" / program).write_text(recorder)
        (folder / "bin" / program).chmod(0o755)
    (folder / "runtime.stamp").touch()

    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        outer = {
            name: value
            for name, value in os.environ.items()
            if not re.match("MAKE|MFLAGS|ACCRETE_|DATA|CLASSES_", name)
        }
        command = ["make", "--no-print-directory", "-C", str(ROOT), f"VENV={folder}", *arguments]
        return subprocess.run(command, env=outer | settings, capture_output=True, text=True, check=False)

    return run


def words(outcome: subprocess.CompletedProcess[str]) -> list[str]:
    """Arguments that the recorded program got."""
    assert outcome.returncode == 0, outcome.stderr
    return [line.removeprefix("word:") for line in outcome.stdout.splitlines() if line.startswith("word:")][1:]


def test_make_demo_passes_the_folder_on(make_on_a_fake_environment: Any) -> None:
    outcome = make_on_a_fake_environment("demo", "DATA=/some where/it's", "CLASSES_PER_STEP=3")
    assert words(outcome) == ["-m", "api.demo"]
    assert {"DATA=/some where/it's", "CLASSES_PER_STEP=3"} <= set(outcome.stdout.splitlines())


def test_make_serve_passes_settings_on_from_either_side(make_on_a_fake_environment: Any) -> None:
    outcome = make_on_a_fake_environment("serve", "ACCRETE_PORT=9001", ACCRETE_HOME="/somewhere else")
    assert words(outcome) == ["up"]
    assert {"ACCRETE_PORT=9001", "ACCRETE_HOME=/somewhere else"} <= set(outcome.stdout.splitlines())


def test_make_demo_needs_no_development_requirement(make_on_a_fake_environment: Any) -> None:
    fresh = make_on_a_fake_environment("--dry-run", "--always-make", "demo").stdout
    assert "--require-hashes -r requirements.lock" in fresh
    assert "requirements-dev.lock" not in fresh


def test_make_says_which_python_it_needs(make_on_a_fake_environment: Any, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "environment")
    outcome = make_on_a_fake_environment("demo", "PYTHON=/no/such/python3")
    assert outcome.returncode != 0
    assert "needs Python 3.11 or newer" in outcome.stderr
    assert "/no/such/python3" in outcome.stderr
    assert not (tmp_path / "environment").exists()
