"""Host and Origin: what cannot be read is a request that breaks the rules, never a fault of the service."""

from collections.abc import Callable, Iterator

import httpx
import pytest

from storage.settings import Settings
from tests.api.http.test_protocol import said
from tests.api.worlds import World, running

HOSTS = [
    "[",
    "]",
    "[::1",
    "[::g]",
    "[]",
    "[v1.x]",
    "::1",
    "localhost:65536",
    "localhost:99999999999",
    "localhost:-1",
    "localhost:x",
    "localhost:80:80",
    "local host",
    "user@localhost",
    "localhost/path",
    "localhost?x",
    "localhost#x",
    "localhost\\x",
    "l\xf6calhost",
    "localhost\x80",
    '"',
    "<script>",
    ":80",
    "localhost, evil",
]
ORIGINS = [
    "[",
    "http://[",
    "http://localhost:99999",
    "localhost",
    "http://a b",
    "http://a/b",
    "http://\xe4",
    "",
    "://a",
]


@pytest.fixture(scope="module", params=["auto", "required"])
def asked(request, settings_for: Callable[..., Settings], tmp_path_factory) -> Iterator[World]:
    """A service without keys, and one with."""
    with running(settings_for(tmp_path_factory.mktemp("addressed"), keys=request.param)) as world:
        yield world


def status(http: httpx.Client, *headers: bytes, version: bytes = b"1.1") -> tuple[bytes, bytes]:
    """Status and body of the answer to a request with such headers."""
    answer = said(http, b"\r\n".join([b"GET /v1/models HTTP/" + version, *headers, b"Connection: close", b"", b""]))
    assert answer
    return answer.split(b" ")[1], answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_that_cannot_be_read_is_a_bad_request(asked: World, host: str):
    code, body = status(asked.http, b"Host: " + host.encode("latin-1"))
    assert code == b"400"
    assert b"Host" in body
    assert b"/problems/malformed" in body


@pytest.mark.parametrize("origin", ORIGINS)
def test_an_origin_that_cannot_be_read_is_a_bad_request(asked: World, origin: str):
    code, body = status(asked.http, b"Host: localhost", b"Origin: " + origin.encode("latin-1"))
    assert code == b"400"
    assert b"Origin" in body


def test_a_request_has_one_host_and_at_most_one_origin(asked: World):
    assert status(asked.http)[0] == b"400"
    assert status(asked.http, b"Host: localhost", b"Host: evil")[0] == b"400"
    assert status(asked.http, b"Host: localhost", b"Origin: http://a", b"Origin: http://b")[0] == b"400"
    assert status(asked.http, version=b"1.0")[0] in {b"401", b"403"}  # such a client need not name it


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:", "localhost:0", "127.0.0.1:65535", "[::1]:80", "LOCALHOST."]
)
@pytest.mark.parametrize("origin", ["null", "http://a.example", "https://a:1", "moz-extension://0-1", "file://"])
def test_what_can_be_read_is_answered_by_who_decides(asked: World, host: str, origin: str):
    code, _ = status(asked.http, b"Host: " + host.encode(), b"Origin: " + origin.encode())
    assert code in {b"401", b"403"}
    if not asked.settings.keys_needed:
        assert status(asked.http, b"Host: " + host.encode())[0] == b"200"
