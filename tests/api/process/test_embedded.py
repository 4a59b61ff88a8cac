"""`accrete up` as a person runs it: the real Redis, worker and API."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from api.process.embedded import free_port
from api.process.sockets import listening
from storage.migrations import upgrade
from storage.settings import Settings
from tests.api.process.test_ending import ignores
from tests.api.process.test_supervisor import alive, eventually

COMMAND = [sys.executable, "-m", "api.commands.commandline", "up", "--port", "0", "--json"]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running service and its URL."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")}
    command = [*COMMAND, "--home", str(tmp_path / "home")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())["url"]
        finally:
            process.send_signal(signal.SIGTERM)


def children(pid: int) -> dict[str, int]:
    """The supervisor's children by a word of their command."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
        name = next(
            (name for name in ("redis-server", "trainer.workers", "reaper", "api.dashboard") if name in command), "api"
        )
        found[name] = int(child)
    return found


def is_gone(pid: int) -> bool:
    """Whether no process has that number."""
    return not alive(pid)


def test_the_service_starts_repairs_itself_refuses_a_second_and_ends_without_a_trace(
    service: tuple[subprocess.Popen[str], str], tmp_path: Path
) -> None:
    process, url = service
    assert httpx.get(f"{url}/readyz", timeout=240).status_code == 200
    first = children(process.pid)
    assert set(first) == {"redis-server", "trainer.workers", "reaper", "api", "api.dashboard"}
    page = httpx.get(url, follow_redirects=True)
    assert (page.status_code, page.headers["Content-Type"].partition(";")[0]) == (200, "text/html")

    command = [*COMMAND, "--home", str(tmp_path / "home")]
    second = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr.startswith(f"error: {tmp_path / 'home'} is in use by process {process.pid}")

    for part, address in (("api", f"{url}/readyz"), ("api.dashboard", str(page.url))):
        os.kill(first[part], signal.SIGKILL)
        assert eventually(partial(is_gone, first[part]))
        assert eventually(partial(answers, address))

    last = children(process.pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=240) == 0
    assert not any(alive(pid) for pid in {*first.values(), *last.values()})


def test_it_refuses_to_start_where_others_could_reach_it_without_keys(tmp_path: Path) -> None:
    command = [*COMMAND, "--home", str(tmp_path / "home"), "--host", "0.0.0.0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")}
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "accrete keys create NAME --scope admin" in refused.stderr
    weak = tmp_path / "weak"
    weak.write_text("1234")
    environment["ACCRETE_ADMIN_KEY_FILE"] = str(weak)
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "openssl rand" in refused.stderr
    settings = {"ACCRETE_HOME": str(tmp_path / "home"), "ACCRETE_HOST": "0.0.0.0", "ACCRETE_REDIS_URL": "unix:///none"}
    alone = subprocess.run(
        [sys.executable, "-m", "api"],
        env=environment | settings,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert alone.returncode == 1
    assert "openssl rand" in alone.stderr


def test_it_does_without_a_dashboard_where_none_is_wanted(tmp_path: Path) -> None:
    environment = without_settings() | {"ACCRETE_DASHBOARD_PORT": "0"}
    command = [*COMMAND, "--home", str(tmp_path / "home")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        assert "api.dashboard" not in children(process.pid)
        assert httpx.get(url).status_code == 404
        process.send_signal(signal.SIGTERM)


def test_it_says_which_setting_chooses_another_port_for_the_dashboard(tmp_path: Path) -> None:
    with listening("127.0.0.1", 0) as taken:
        environment = without_settings() | {"ACCRETE_DASHBOARD_PORT": str(taken.getsockname()[1])}
        command = [*COMMAND[:-3], "--port", str(free_port("127.0.0.1")), "--json", "--home", str(tmp_path / "home")]
        refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("error: cannot listen on 127.0.0.1 port ")
    assert "for the dashboard with ACCRETE_DASHBOARD_PORT (0: none)" in refused.stderr


def without_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")}


def test_an_api_by_itself_wants_keys_on_this_machine_too(tmp_path: Path) -> None:
    """What is before it, it cannot know: a proxy makes all the world local."""
    settings = {"ACCRETE_HOME": str(tmp_path / "home"), "ACCRETE_REDIS_URL": "unix:///none"}
    (tmp_path / "home").mkdir()
    upgrade(Settings(home=tmp_path / "home").database)
    command = [sys.executable, "-m", "api"]
    for chosen, way_out in (({}, True), ({"ACCRETE_KEYS": "required"}, False), ({"ACCRETE_HOST": "0.0.0.0"}, False)):
        refused = subprocess.run(
            command,
            env=without_settings() | settings | chosen,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert refused.returncode == 1
        assert "accrete keys create NAME --scope admin" in refused.stderr
        assert ("ACCRETE_KEYS=none" in refused.stderr) is way_out, chosen


def test_no_keys_is_no_answer_to_others(tmp_path: Path) -> None:
    command = [*COMMAND, "--home", str(tmp_path / "home"), "--host", "0.0.0.0"]
    environment = without_settings() | {"ACCRETE_KEYS": "none"}
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert refused.returncode == 1
    assert "ACCRETE_KEYS=none is for this machine alone" in refused.stderr


def test_it_says_so_where_it_asks_for_no_keys(tmp_path: Path) -> None:
    command = [*COMMAND, "--home", str(tmp_path / "home"), "--port", "0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=without_settings() | {"ACCRETE_DRAIN_SECONDS": "0"},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = json.loads(process.stdout.readline())["url"]
        assert httpx.get(f"{url}/v1/models", timeout=240).status_code == 200
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
    assert f"No keys are asked for: whoever reaches port {url.rpartition(':')[2]} of this machine is admin" in said
    assert "ACCRETE_KEYS=required" in said


def test_with_the_administrator_s_key_it_starts_and_takes_orders_from_others_with_theirs(tmp_path: Path) -> None:
    secret, home = "0123456789abcdef" * 4, tmp_path / "home"
    (tmp_path / "key").write_text(secret + "\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")}
    environment |= {"ACCRETE_ADMIN_KEY_FILE": str(tmp_path / "key"), "ACCRETE_HOME": str(home)}
    environment["ACCRETE_DRAIN_SECONDS"] = "0"
    command = [*COMMAND, "--host", "0.0.0.0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            url = json.loads(process.stdout.readline())["url"]
            assert httpx.get(f"{url}/v1/models", timeout=240).status_code == 401
            administrator = {"Authorization": f"Bearer {secret}"}
            assert httpx.get(f"{url}/v1/models", headers=administrator, timeout=240).status_code == 200
            command = [sys.executable, "-m", "api.commands.commandline"]
            made = subprocess.run(
                [*command, "keys", "create", "robot", "--scope", "predict", "--json"],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            key = json.loads(made.stdout)
            as_robot = environment | {"ACCRETE_URL": url, "ACCRETE_API_KEY": key["key"]}
            listed = subprocess.run([*command, "models"], env=as_robot, capture_output=True, text=True, check=True)
            assert "No models yet" in listed.stdout
            refused = subprocess.run(
                [*command, "models", "create", "m"], env=as_robot, capture_output=True, text=True, check=False
            )
            assert (refused.returncode, "scope 'train'" in refused.stderr) == (1, True)
            subprocess.run([*command, "keys", "revoke", key["id"]], env=environment, capture_output=True, check=True)
            robot = {"Authorization": f"Bearer {key['key']}"}
            assert eventually(lambda: httpx.get(f"{url}/v1/models", headers=robot, timeout=240).status_code == 401)
            listed = subprocess.run(
                [*command, "keys", "list"], env=environment, capture_output=True, text=True, check=True
            )
            assert "robot" in listed.stdout
            assert key["key"] not in listed.stdout
        finally:
            process.send_signal(signal.SIGTERM)
    logs = b"".join(path.read_bytes() for path in (home / "logs").iterdir())
    assert secret.encode() not in logs
    assert key["key"].encode() not in logs


def answers(url: str) -> bool:
    """Whether there is an answer of 200."""
    try:
        return httpx.get(url, timeout=240).status_code == 200
    except httpx.TransportError:
        return False


def test_under_nohup_no_process_hears_the_terminal_close_and_sigterm_drains(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")}
    environment["ACCRETE_DRAIN_SECONDS"] = "1000"
    command = ["nohup", *COMMAND, "--home", str(tmp_path / "home")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            url = json.loads(process.stdout.readline())["url"]
            everyone = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
            assert len(everyone) >= 6  # reaper, Redis, worker, its fork server and the API
            assert all(ignores(pid, signal.SIGHUP) for pid in everyone)
            for pid in everyone:
                os.kill(pid, signal.SIGHUP)
            assert answers(f"{url}/readyz")
        finally:
            process.send_signal(signal.SIGTERM)
        try:
            assert eventually(lambda: httpx.get(f"{url}/readyz", timeout=240).status_code == 503)
            assert answers(f"{url}/livez")
        finally:
            process.send_signal(signal.SIGTERM)  # that is long enough
        assert process.wait(240) == 0


def test_it_refuses_to_start_where_its_worker_could_not_train_and_says_what_to_install(tmp_path: Path) -> None:
    run = "import sys; sys.modules['torch'] = None; from api.commands.commandline import app; app()"
    command = [sys.executable, "-c", run, "up", "--home", str(tmp_path / "home")]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    (line,) = refused.stderr.splitlines()
    assert line.startswith(
        "error: training needs accrete[worker], and lacks torch: pip install '.[worker]' in Accrete's checkout"
    )
    assert "python -m api" in line
    assert not (tmp_path / "home").exists()
