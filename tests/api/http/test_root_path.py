"""Behind a proxy that serves it under a path of its own, which it takes off the requests' paths, or leaves on them."""

import re

import pytest

from api.client.client import Client
from api.client.connection import NotFound
from storage.settings import Settings
from tests.api.worlds import class_zip, running

ROOT = "/tools/accrete"


@pytest.fixture(scope="module")
def proxied(settings_for, tmp_path_factory):
    with running(settings_for(tmp_path_factory.mktemp("proxied"), root_path=ROOT)) as world:
        yield world


@pytest.mark.parametrize("prefix", ["", ROOT])
def test_every_address_that_is_given_begins_with_the_path(proxied, prefix):
    http, name = proxied.http, f"m{len(prefix)}"
    created = http.post(f"{prefix}/v1/models", json={"name": name, "image_size": 8})
    assert (created.status_code, created.headers["location"]) == (201, f"{ROOT}/v1/models/{name}")
    batch = http.post(f"{prefix}/v1/models/{name}/batches")
    assert batch.headers["location"] == f"{ROOT}/v1/batches/{batch.json()['id']}"
    asked = http.post(f"{prefix}/v1/models/{name}/increments", content=class_zip("a", "b"))
    assert asked.headers["location"] == f"{ROOT}/v1/increments/{asked.json()['id']}"
    assert http.get(asked.headers["location"]).json()["id"] == asked.json()["id"]
    missing = http.get(f"{prefix}/v1/models/nobody").json()
    assert missing["type"] == f"{ROOT}/problems/model-not-found"
    assert http.get(missing["type"]).status_code == 200


@pytest.mark.parametrize("prefix", ["", ROOT])
def test_the_description_and_its_page_know_it(proxied, prefix):
    assert proxied.http.get(f"{prefix}/openapi.json").json()["servers"] == [{"url": ROOT}]
    page = proxied.http.get(f"{prefix}/docs").text
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)["']|url: '([^']+)'""", page)
    addresses = [one or other for one, other in loaded]
    assert f"{ROOT}/openapi.json" in addresses
    assert len(addresses) >= 4
    for address in addresses:
        assert address.startswith(f"{ROOT}/"), address
        assert proxied.http.get(address).status_code == 200, address


@pytest.mark.parametrize("prefix", ["", ROOT])
def test_errors_keep_their_form_and_what_is_allowed(proxied, prefix):
    assert list(proxied.http.get(f"{prefix}/v2/models/nobody").json()) == ["error"]
    answer = proxied.http.delete(f"{prefix}/v2/models/nobody/infer")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert proxied.http.get(f"{prefix}/readyz").status_code == 200
    assert proxied.http.head(f"{prefix}/v1/models").status_code == 200


def test_the_client_finds_it_there(proxied):
    with Client(f"{str(proxied.http.base_url).rstrip('/')}{ROOT}") as client:
        client.create_model("by-client", image_size=8)
        with pytest.raises(NotFound) as missing:
            client.model("nobody")
        assert missing.value.kind == "model-not-found"


def test_a_path_that_looks_like_it_is_another(proxied):
    assert proxied.http.get(f"{ROOT}2/v1/models").status_code == 404


@pytest.mark.parametrize("path", ["accrete", "/accrete/", "/", "/a b", "/v1", "/v2/x", "/docs", "//x", "/a?b"])
def test_a_path_that_cannot_be_is_refused_at_the_start(path):
    with pytest.raises(ValueError, match=r"root_path|ROOT_PATH"):
        Settings(root_path=path)
