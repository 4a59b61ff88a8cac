"""The process that training processes are forked from: real ones, ended in every way they can end."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from storage.settings import Settings
from storage.work.leases import Claim
from tests.flow.test_worker import wait_for
from trainer.process.protocol import REFUSED, Failure, Order, StageBegun
from trainer.workers import forkserver
from trainer.workers.child import Child, Unintelligible
from trainer.workers.forkserver import Forked, ForkServer, may_use_gpu

NICENESS = 3


@pytest.fixture(scope="module", params=[True, False], ids=["loaded", "fresh"])
def server(request: pytest.FixtureRequest) -> Iterator[ForkServer]:
    """A fork server of either kind."""
    started = ForkServer(NICENESS, loaded=request.param)
    started.start()
    yield started
    started.close()
    assert children() == []


class Waiting(NamedTuple):
    """A process that was forked and waits for its order."""

    forked: Forked
    channel: socket.socket
    process: psutil.Process


def children() -> list[psutil.Process]:
    """Fork servers of this process that run."""
    own = psutil.Process().children()
    return [one for one in own if "trainer.process" in " ".join(one.cmdline()) and one.status() != psutil.STATUS_ZOMBIE]


def waiting(server: ForkServer, output: Path) -> Waiting:
    channel, theirs = socket.socketpair()
    with theirs, output.open("wb") as file:
        forked = server.fork(theirs, file.fileno())
    forked.begun()
    (parent,) = children()
    (process,) = parent.children()
    return Waiting(forked, channel, process)


def attempt(server: ForkServer, folder: Path, migrated: Path, **settings: object) -> Child:
    """An attempt at an increment that is in no database."""
    folder.mkdir()
    home = Settings(home=folder, database_url=f"sqlite:///{migrated}", **settings)  # type: ignore[arg-type]
    return Child(server, Claim("0" * 32, 1), home, folder)


def test_one_server_forks_one_attempt_after_another(server: ForkServer, tmp_path: Path, migrated_sqlite: Path) -> None:
    server.start()  # runs already
    servers = []
    for number in range(3):
        with attempt(server, tmp_path / str(number), migrated_sqlite) as child:
            wait_for(lambda: child.poll() is not None)
            assert child.poll() == REFUSED, child.last_words()
            assert child.messages.empty()
        assert "no increment" in Failure.read(tmp_path / str(number)).reason
        servers.append([one.pid for one in children()])
        wait_for(lambda: psutil.Process(servers[-1][0]).children() == [])  # reaped
    assert servers[0] == servers[1] == servers[2]
    assert len(servers[0]) == 1


def test_what_it_dies_of_is_its_last_word(server: ForkServer, tmp_path: Path) -> None:
    (tmp_path / "other.db").write_text("no database at all, but long enough to be looked at as if it were one" * 20)
    with attempt(server, tmp_path / "attempt", tmp_path / "other.db") as child:
        wait_for(lambda: child.poll() is not None)
        assert child.poll() == 1
        assert "file is not a database" in child.last_words()


class Babbling:
    """A server whose process says what a test wants, in place of training, and then waits to be ended."""

    def __init__(self, said: bytes) -> None:
        self.said = said

    def fork(self, channel: socket.socket, errors: int) -> "Impostor":
        return Impostor(self.said, channel)


class Impostor:
    """A process of its own that writes to the attempt's socket, held as `Forked` holds one."""

    def __init__(self, said: bytes, channel: socket.socket) -> None:
        program = (
            "import sys, time; sys.stdout.buffer.write(sys.stdin.buffer.read()); sys.stdout.flush(); time.sleep(99)"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=channel.fileno(), start_new_session=True
        )
        threading.Thread(target=self._dictate, args=[said], daemon=True).start()

    def _dictate(self, said: bytes) -> None:
        assert self.process.stdin is not None
        with self.process.stdin as stdin, suppress(BrokenPipeError):
            stdin.write(said)

    def begun(self) -> None:
        pass

    def ended(self) -> int:
        return self.process.wait()

    def send(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)

    def let_go(self) -> None:
        pass


UNREADABLE = {
    "no JSON": b"Traceback (most recent call last):\n",
    "no UTF-8": b'{"kind": "note", "text": "\xff\xfe"}\n',
    "no object": b"5\n",
    "no kind": b'{"text": "hello"}\n',
    "an unknown kind": b'{"kind": "song"}\n',
    "a field too many": b'{"kind": "note", "text": "hello", "tune": "la"}\n',
    "a field of another type": b'{"kind": "epoch", "epoch": "first"}\n',
    "a field too few": b'{"kind": "checkpoint"}\n',
    "too deep": b"[" * 60_000 + b"\n",
    "a line without an end": b"x" * (8 << 20),
    "an enormous message": b'{"kind": "note", "text": "' + b"x" * (8 << 20) + b'"}\n',
}


@pytest.mark.parametrize("said", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_cannot_be_understood_ends_the_attempt_and_the_process(said: bytes, tmp_path: Path) -> None:
    good = b'{"kind": "stage", "stage": "ingesting"}\n'
    with Child(Babbling(good + said), Claim("0" * 32, 1), Settings(home=tmp_path), tmp_path) as child:  # type: ignore[arg-type]
        with pytest.raises(Unintelligible, match="cannot be understood"):
            wait_for(lambda: child.poll() is not None)
        assert child.messages.get_nowait() == StageBegun("ingesting")
    impostor: Any = child._forked
    assert impostor.process.returncode == -signal.SIGTERM


def test_messages_that_nobody_takes_wait_in_bounded_memory(tmp_path: Path) -> None:
    said = b'{"kind": "note", "text": "' + b"x" * 60_000 + b'"}\n'
    with Child(Babbling(said * 1000), Claim("0" * 32, 1), Settings(home=tmp_path), tmp_path) as child:  # type: ignore[arg-type]
        wait_for(child.messages.full)
        assert child.messages.qsize() < 300
        assert child.poll() is None


def test_it_has_a_group_a_name_and_a_niceness_of_its_own(server: ForkServer, tmp_path: Path) -> None:
    forked, channel, process = waiting(server, tmp_path / "output")
    assert os.getpgid(process.pid) == process.pid
    assert os.getsid(process.pid) == process.ppid()
    assert process.nice() == psutil.Process().nice() + NICENESS
    assert os.sched_getscheduler(process.pid) == os.SCHED_BATCH
    settings = {"home": str(tmp_path / "home")}
    order = Order(increment="f" * 32, attempt=1, folder=str(tmp_path), settings=settings, spawned_at=0.0)
    channel.sendall(order.encode()[:-2])
    time.sleep(0.1)
    assert process.name().startswith("python")
    channel.sendall(b"}\n")
    wait_for(lambda: process.status() == psutil.STATUS_ZOMBIE or process.name() == "train fffffffff")
    assert forked.ended() != 0
    forked.let_go()
    channel.close()


def test_it_ends_when_nobody_listens(server: ForkServer, tmp_path: Path) -> None:
    forked, channel, process = waiting(server, tmp_path / "output")
    channel.close()
    assert forked.ended() == 1  # it had no order yet
    forked.let_go()
    wait_for(lambda: not process.is_running())


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_it_and_is_its_status(server: ForkServer, tmp_path: Path, how: signal.Signals) -> None:
    forked, channel, process = waiting(server, tmp_path / "output")
    forked.send(how)
    assert forked.ended() == -how
    assert process.status() == psutil.STATUS_ZOMBIE  # until it is let go, so that no other process is signalled
    forked.let_go()
    wait_for(lambda: not process.is_running())
    channel.close()


def test_a_killed_server_takes_it_along_and_another_one_forks_the_next(server: ForkServer, tmp_path: Path) -> None:
    forked, channel, process = waiting(server, tmp_path / "output")
    (parent,) = children()
    parent.kill()
    assert channel.recv(1) == b""
    assert forked.ended() == -signal.SIGKILL
    forked.let_go()
    wait_for(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    channel.close()
    forked, channel, process = waiting(server, tmp_path / "next")
    assert process.ppid() != parent.pid
    channel.close()
    assert forked.ended() == 1
    forked.let_go()


def test_an_attempt_that_ends_before_the_server_has_loaded_waits_for_nothing(
    tmp_path: Path, migrated_sqlite: Path
) -> None:
    own = ForkServer(NICENESS, loaded=True)
    with attempt(own, tmp_path / "attempt", migrated_sqlite) as child:
        assert child.poll() is None
    assert child.poll() == -signal.SIGKILL
    own.close()


def test_what_may_use_a_gpu_is_a_fresh_interpreter(server: ForkServer, tmp_path: Path) -> None:
    forked, channel, process = waiting(server, tmp_path / "output")
    wait_for(lambda: server.loaded or "train" in process.cmdline())
    assert ("train" in process.cmdline()) is not server.loaded
    channel.close()
    assert forked.ended() == 1
    forked.let_go()


def test_where_a_gpu_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forkserver, "_GPUS", (tmp_path / "none", tmp_path / "device"))
    assert not may_use_gpu("auto")
    (tmp_path / "device").touch()
    assert may_use_gpu("auto")
    assert may_use_gpu("cuda:1")
    assert not may_use_gpu("cpu")


PROGRAM = """
import sys, time
from trainer.workers.forkserver import ForkServer
import socket
server = ForkServer(0, loaded=True)
ours, theirs = socket.socketpair()
forked = server.fork(theirs, 2)
forked.begun()
print("forked", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_both_end_with_the_worker_however_it_ends(how: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "forked\n"
        below = psutil.Process(worker.pid).children(recursive=True)
        assert len(below) == 2
        worker.send_signal(how)
    wait_for(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in below))


def test_a_server_that_cannot_load_is_an_attempt_that_failed(
    tmp_path: Path, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['trainer.process.stages'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    broken = ForkServer(NICENESS, loaded=True)
    with attempt(broken, tmp_path / "attempt", migrated_sqlite) as child:
        wait_for(lambda: child.poll() is not None)
        assert child.poll() == 1
    broken.close()


def test_loading_starts_no_thread_that_a_fork_would_lose() -> None:
    """But the one of NumPy's linear algebra, which knows of forks."""
    count = "import trainer.process.forks, os; trainer.process.forks._load(); print(len(os.listdir('/proc/self/task')))"
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", count], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
