"""Who of several processes on one port answers: nobody outside sees it but by whose connection it was."""

import subprocess
from contextlib import ExitStack

import httpx
import psutil


def all_answer(process: "subprocess.Popen[bytes]", url: str, *, count: int) -> bool:
    """Whether as many processes as that answered a request; for one, the process itself does.

    Connections stay open until the end, so that each tells which process took it.
    """
    with ExitStack() as stack:
        for _ in range(20 * count):
            try:
                answer = stack.enter_context(httpx.Client(timeout=240)).get(f"{url}/readyz")
            except httpx.TransportError:
                return False
            if answer.status_code != 200:
                return False
            if len(takers(process, httpx.URL(url).port)) == count:
                return True
    return False


def takers(process: "subprocess.Popen[bytes]", port: int | None) -> set[int]:
    """Ids of the processes that hold a connection to the port."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
    return {
        one.pid
        for one in family
        for connection in one.net_connections("tcp")
        if connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == port
    }
