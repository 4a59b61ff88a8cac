"""What a process says about the environment it was started in, and what it makes of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from api.process.reaper import MARK
from storage.environment import SUPERVISED, environment_warnings, network_file_system, training_lacks
from storage.settings import Settings, SettingsInvalid, read_settings

LINKS = {  # of a Service named accrete, and of one named accrete-redis, as a pod gets them
    "ACCRETE_PORT": "tcp://10.96.0.12:8000",
    "ACCRETE_SERVICE_HOST": "10.96.0.12",
    "ACCRETE_SERVICE_PORT": "8000",
    "ACCRETE_SERVICE_PORT_HTTP": "8000",
    "ACCRETE_PORT_8000_TCP": "tcp://10.96.0.12:8000",
    "ACCRETE_PORT_8000_TCP_PROTO": "tcp",
    "ACCRETE_PORT_8000_TCP_PORT": "8000",
    "ACCRETE_PORT_8000_TCP_ADDR": "10.96.0.12",
    "ACCRETE_REDIS_SERVICE_HOST": "10.96.0.13",
    "ACCRETE_REDIS_PORT": "tcp://10.96.0.13:6379",
    "ACCRETE_REDIS_PORT_6379_TCP": "tcp://10.96.0.13:6379",
}
LOCAL = "/dev/vda / ext4 rw 0 0\n"


def told(
    environment: dict[str, str], *, mounts: Path = Path(os.devnull), settings: Settings | None = None
) -> list[str]:
    """What is odd about an environment."""
    return list(environment_warnings(settings or Settings(), environment=environment, mounts=mounts))


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """Put variables into this process's environment."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_the_service_links_of_kubernetes_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, LINKS)
    assert read_settings().port == 8000
    assert told(LINKS) == [
        "ACCRETE_PORT is the address of a service, set by Kubernetes or Docker, and is ignored",
    ]


def test_a_port_that_is_neither_a_number_nor_a_link_is_still_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCRETE_PORT", "http")
    monkeypatch.setenv("ACCRETE_THREADS", "0")
    with pytest.raises(SettingsInvalid, match=r"^ACCRETE_PORT: .*integer.*; ACCRETE_THREADS: .*greater"):
        read_settings()


def test_an_empty_variable_means_that_it_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(f"ACCRETE_{name.upper()}", "")
    assert read_settings() == Settings.model_construct()


def test_the_value_of_a_wrong_setting_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCRETE_THREADS", "s3cret")
    with pytest.raises(SettingsInvalid) as raised:
        read_settings()
    assert "s3cret" not in str(raised.value) + str(raised.value.__cause__)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("ACCRETE_DATABSE_URL", "ACCRETE_DATABASE_URL"),
        ("ACCRETE_MAX_UPLOAD", "ACCRETE_MAX_UPLOAD_BYTES"),
        ("accrete_hoem", "ACCRETE_HOME"),
    ],
)
def test_a_misspelt_setting_is_named_with_what_was_meant(variable: str, meant: str) -> None:
    assert told({variable: "x"}) == [f"{variable} is no setting and is ignored: did you mean {meant}?"]


def test_what_is_no_setting_is_named_and_what_is_one_is_not() -> None:
    known = {f"ACCRETE_{name.upper()}": "x" for name in Settings.model_fields}
    theirs = {
        "ACCRETE_URL": "x",
        "ACCRETE_API_KEY": "x",
        MARK: "x",
        "HOME": "x",
        "ACCRETED": "x",
        "_ACCRETE_COMPLETE": "",
    }
    assert told(known | theirs) == []
    assert told({"ACCRETE_QQ": "x"}) == ["ACCRETE_QQ is no setting and is ignored"]
    assert SUPERVISED == MARK


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "fuse", "9p", "ceph", "lustre"])
def test_sqlite_on_a_network_disk_is_warned_about(kind: str, tmp_path: Path) -> None:
    home, mounts = tmp_path / "with blank" / "home", tmp_path / "mounts"
    mounts.write_text(LOCAL + f"server:/x {str(home.parent).replace(' ', chr(92) + '040')} {kind} rw 0 0\n")
    (warning,) = told({}, mounts=mounts, settings=Settings(home=home))
    assert str(home) in warning
    assert f"({kind})" in warning
    assert "ACCRETE_DATABASE_URL" in warning
    assert told({}, mounts=mounts, settings=Settings(home=home, database_url="postgresql://there/db")) == []
    assert told({}, mounts=mounts, settings=Settings(home=tmp_path / "with")) == []


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "overlay", "tmpfs", "fuseblk", "zfs", "virtiofs"])
def test_other_disks_are_not(kind: str, tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/x / nfs4 rw 0 0\nlocal {tmp_path} {kind} rw 0 0\n")
    assert network_file_system(tmp_path / "home", mounts) is None
    assert network_file_system(Path("/elsewhere"), mounts) == "nfs4"
    assert network_file_system(Path("/elsewhere"), tmp_path / "no such file") is None


@pytest.mark.parametrize("process", ["api", "trainer.workers", "storage.migrations"])
def test_a_process_of_its_own_says_what_is_odd(process: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")}
    environment |= {
        "ACCRETE_HOME": str(tmp_path / "home"),
        "ACCRETE_DATABSE_URL": "x",
        "ACCRETE_REDIS_URL": "redis://127.0.0.1:1",
    }
    environment |= {"ACCRETE_HOST": "203.0.113.1", "ACCRETE_DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    command = [sys.executable, "-m", process, *(["--hostname", "w@h"] if process == "trainer.workers" else [])]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as started:
        assert started.stderr is not None
        lines = iter(started.stderr.readline, "")
        found = next((line for line in lines if "did you mean ACCRETE_DATABASE_URL?" in line), None)
        started.kill()
    assert found is not None
    assert "WARNING" in found


def test_tables_are_not_made_by_settings_that_are_wrong(tmp_path: Path) -> None:
    environment = os.environ | {"ACCRETE_HOME": str(tmp_path / "home"), "ACCRETE_PORT": "http"}
    command = [sys.executable, "-m", "storage.migrations"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ACCRETE_PORT: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "home").exists()


def test_what_training_lacks_is_found_without_an_import(monkeypatch: pytest.MonkeyPatch) -> None:
    assert training_lacks() is None
    for name in ("torch", "onnx"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    lack = training_lacks()
    assert (
        lack == "training needs accrete[worker], and lacks torch, onnx: pip install '.[worker]' in Accrete's checkout"
    )
    run = (
        "import sys, storage.environment as e; e.training_lacks(); sys.exit(bool({'torch', 'onnx'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", run], check=False).returncode == 0
