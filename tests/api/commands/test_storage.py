"""Commands that need an existing service: where there is none they say where they looked, and make nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from storage.migrations import upgrade

COMMANDS = (
    ["backup", "nightly.tar"],
    ["gc"],
    ["keys", "create", "tool", "--scope", "train"],
    ["keys", "list"],
    ["keys", "revoke", "tool"],
    ["upgrade"],
)


def accrete(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command as cron runs it, in a working directory of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")}
    return subprocess.run(
        [sys.executable, "-m", "api.commands.commandline", *arguments],
        cwd=folder,
        env=inherited | settings,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
@pytest.mark.parametrize("database", ["", "postgresql"])
def test_without_a_service_the_home_is_named_and_nothing_is_made(
    command: list[str], database: str, request: pytest.FixtureRequest, tmp_path: Path
):
    if command == ["keys", "list"] and not database:
        pytest.skip("answered by nothing: the test below")
    settings = {}
    if database:
        server = request.getfixturevalue("postgresql")
        settings["ACCRETE_DATABASE_URL"] = server.url(server.create())
    done = accrete(tmp_path, *command, **settings)
    assert done.returncode == 1
    assert not done.stdout
    assert str(tmp_path / "data") in done.stderr
    assert ("ACCRETE_DATABASE_URL" if database else "set ACCRETE_HOME") in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_keys_of_no_service_are_none_and_the_home_that_was_looked_at_is_named(tmp_path: Path):
    done = accrete(tmp_path, "keys", "list", "--json")
    assert (done.returncode, done.stdout) == (0, '{"items": []}\n')
    assert str(tmp_path / "data") in done.stderr
    assert "set ACCRETE_HOME" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_named_by_its_home(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "accrete.db").touch()
    done = accrete(tmp_path, "backup", "nightly.tar")
    assert (done.returncode, str(tmp_path / "data") in done.stderr) == (1, True)
    assert not (tmp_path / "nightly.tar").exists()


def test_with_a_service_all_of_them_work(tmp_path: Path):
    home = tmp_path / "data"
    home.mkdir()
    upgrade(f"sqlite:///{home / 'accrete.db'}")
    made = accrete(tmp_path, "keys", "create", "tool", "--scope", "train")
    assert made.returncode == 0, made.stderr
    for command in (["keys", "list"], ["keys", "revoke", "tool"], ["gc"]):
        assert accrete(tmp_path, *command).returncode == 0
    upgraded = accrete(tmp_path, "upgrade", "--json")
    assert (upgraded.returncode, upgraded.stdout) == (0, '{"versions": []}\n'), upgraded.stderr
    written = accrete(tmp_path, "backup", "nightly.tar")
    assert (written.returncode, (tmp_path / "nightly.tar").exists()) == (0, True)
    assert f"{home} has no models" in written.stderr
    restored = accrete(tmp_path, "restore", "nightly.tar", ACCRETE_HOME=str(tmp_path / "other"))
    assert (restored.returncode, str(tmp_path / "other") in restored.stdout) == (0, True)


@pytest.mark.parametrize("command", [*COMMANDS, ["up"], ["restore", "nightly.tar"]], ids=lambda command: command[0])
@pytest.mark.parametrize("there", [False, True], ids=["no service", "a service"])
def test_a_misspelt_setting_is_named_once_by_every_command_that_reads_them(
    command: list[str], there: bool, tmp_path: Path
):
    (tmp_path / "nightly.tar").write_bytes(b"")
    settings = {"ACCRETE_HOEM": "x"}
    if there:
        (tmp_path / "data").mkdir()
        upgrade(f"sqlite:///{tmp_path}/data/accrete.db")
    if command == ["backup", "nightly.tar"]:
        command = ["backup", "other.tar"]
    if command == ["up"]:  # which ends before it has begun
        settings["ACCRETE_REDIS_URL"] = "redis://127.0.0.1:1"
    done = accrete(tmp_path, *command, **settings)
    warnings = [line for line in done.stderr.splitlines() if "ACCRETE_HOEM" in line]
    assert warnings == ["warning: ACCRETE_HOEM is no setting and is ignored: did you mean ACCRETE_HOME?"]
