"""What is deployed, and how: Makefile, images, compose file."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.__main__ import GRACE_SECONDS
from storage.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


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


def test_compose_publishes_the_api_and_the_dashboard_on_this_machine_alone(compose: Any) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert list(published) == ["api", "dashboard"]
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    dashboard = compose["services"]["dashboard"]
    assert not dashboard.keys() & {"secrets", "volumes", "environment"}  # it needs to know the API's address alone


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


def test_compose_runs_each_part_in_the_image_made_for_it(compose: Any) -> None:
    built = {name: service["build"] for name, service in compose["services"].items() if "build" in service}
    assert {name: build["target"] for name, build in built.items()} == {
        "api": "api",
        "dashboard": "api",
        "migrations": "api",
        "worker": "worker",
        "worker-gpu": "worker",
    }
    for name, build in built.items():
        assert compose["services"][name]["image"].split(":")[0] == f"accrete-{build['target']}"


def test_no_part_in_a_container_reports_its_use_of_onnx_runtime(compose: Any) -> None:
    for name in ("api", "migrations", "worker", "worker-gpu"):
        assert compose["services"][name]["environment"]["ORT_DISABLE_TELEMETRY"] == "1"
    for target in ("api", "worker"):
        assert any("ORT_DISABLE_TELEMETRY=1" in line for line in image(target))


def image(target: str) -> list[str]:
    """The instructions that make an image, those of the stages below it first."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    stages: dict[str, list[str]] = {}
    for line in filter(None, re.sub(r"(?m)^#.*$", "", text).splitlines()):
        if begun := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            stages[begun[2]] = [*stages.get(begun[1], [])]
        else:
            stages[list(stages)[-1]].append(line)
    return stages[target]


def test_the_image_of_the_api_has_neither_torch_nor_a_compiler() -> None:
    api, worker = "\n".join(image("api")), "\n".join(image("worker"))
    assert re.findall(r"--requirement (\S+)", api) == ["requirements-api.lock"]
    assert re.findall(r"--requirement (\S+)", worker) == ["requirements-api.lock", "requirements-worker.lock"]
    assert "apt-get" not in api + worker
    assert "OMP_WAIT_POLICY=PASSIVE" in worker


def test_an_image_that_is_built_without_a_target_is_the_api() -> None:
    stages = re.findall(r"(?m)^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert stages[-1] == "api"
    assert image("api")[-1] == 'CMD ["python", "-m", "api"]'


def test_the_image_of_the_worker_starts_it_as_compose_does(compose: Any) -> None:
    assert json.loads(image("worker")[-1].removeprefix("CMD ")) == compose["services"]["worker"]["command"]


def test_both_images_hold_every_package_and_no_more_is_sent_to_the_builder() -> None:
    copied = {line.split()[1] for line in image("wheel") if re.fullmatch(r"COPY (\w+) \1", line)}
    assert copied == {
        pattern.split(".")[0] for pattern in PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    files = {"LICENSE", "README.md", "pyproject.toml", "requirements-api.lock", "requirements-worker.lock"}
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied | files


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
