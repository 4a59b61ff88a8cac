"""Uploads through the dashboard: passed on piece by piece, and nothing of another origin."""

import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.api.dashboard.conftest import Dashboard
from tests.api.worlds import class_zip, eventually, picture

MIB = 1 << 20


@pytest.fixture
def model(api_url: str) -> str:
    """The name of a model."""
    name: str = httpx.post(f"{api_url}/v1/models", json={"name": "mine", "image_size": 8}).json()["name"]
    return name


def test_a_batch_goes_through_and_is_there(dashboard: Dashboard, api_url: str, model: str):
    sent = httpx.post(
        f"{dashboard.url}/uploads/{model}", content=class_zip("cat", "dog"), headers={"Content-Type": "application/zip"}
    )
    assert sent.status_code == 201
    batch = httpx.get(f"{api_url}/v1/batches/{sent.json()['id']}").json()
    assert [one["label"] for one in batch["classes"]] == ["cat", "dog"]


def test_what_the_api_refuses_is_refused_in_its_words(dashboard: Dashboard, api_url: str, model: str):
    sent = httpx.post(f"{dashboard.url}/uploads/{model}", content=b"x", headers={"Content-Type": "application/zip"})
    said = httpx.post(f"{api_url}/v1/models/{model}/batches", content=b"x", headers={"Content-Type": "application/zip"})
    assert (sent.status_code, sent.json()["detail"]) == (said.status_code, said.json()["detail"])


def test_a_large_body_is_never_in_memory_as_a_whole(dashboard: Dashboard, model: str):
    before = dashboard.process.memory_info().rss
    highest = before

    def pieces() -> Iterator[bytes]:
        nonlocal highest
        for _ in range(300):
            yield bytes(MIB)
            highest = max(highest, dashboard.process.memory_info().rss)

    sent = httpx.post(
        f"{dashboard.url}/uploads/{model}", content=pieces(), headers={"Content-Type": "application/x-tar"}, timeout=120
    )
    assert sent.status_code == 422  # zeros are an empty tar
    assert highest - before < 64 * MIB


def test_an_upload_that_breaks_off_leaves_nothing(dashboard: Dashboard, api_url: str, model: str, tmp_path: Path):
    address = urlsplit(dashboard.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    connection.putrequest("POST", f"/uploads/{model}")
    connection.putheader("Content-Type", "application/x-tar")
    connection.putheader("Content-Length", str(100 * MIB))
    connection.endheaders()
    for _ in range(20):
        connection.send(bytes(MIB))

    def unfinished() -> list[Path]:
        return [path for path in (tmp_path / "home" / "scratch").rglob("*") if path.is_file()]

    assert eventually(unfinished)
    connection.close()
    assert eventually(lambda: not unfinished())
    assert httpx.get(f"{api_url}/v1/models/{model}/batches").json()["items"] == []


def test_an_image_is_tried_and_a_model_without_a_version_says_so(dashboard: Dashboard, model: str):
    tried = httpx.post(f"{dashboard.url}/tries/{model}", content=picture(1))
    assert tried.status_code == 409
    assert "has no version yet" in tried.json()["detail"]
    assert httpx.post(f"{dashboard.url}/tries/{model}", content=bytes(11_000_000)).status_code == 413


@pytest.mark.parametrize("path", ["/uploads/mine", "/tries/mine", "/key"])
def test_a_page_of_another_origin_changes_nothing(dashboard: Dashboard, path: str):
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert httpx.post(f"{dashboard.url}{path}", content=b"x", headers=headers).status_code == 403


def test_a_page_of_another_origin_gets_no_socket(dashboard: Dashboard):
    path = f"{dashboard.url}/_nicegui_ws/socket.io/?EIO=4&transport=polling"
    assert httpx.get(path, headers={"Origin": "http://evil.example"}).status_code == 403
    assert httpx.get(path, headers={"Origin": dashboard.url}).status_code != 403
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    path = f"{dashboard.url}/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    assert httpx.get(path, headers=upgrade | {"Origin": "http://evil.example"}).status_code == 403
