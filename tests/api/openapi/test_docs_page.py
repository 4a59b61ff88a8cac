"""The page at /docs works where there is no internet."""

import re

from tests.api.worlds import running


def loaded(http, path):
    """The page, and every address it loads something from."""
    page = http.get(path)
    assert page.status_code == 200
    found = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
    return page.text, found


def test_the_page_loads_everything_from_this_service(http):
    text, addresses = loaded(http, "/docs")
    assert "swagger-ui" in text
    assert "http://" not in text
    assert "https://" not in text
    assert len(addresses) >= 3
    for address in addresses:
        answer = http.get(address)
        assert answer.status_code == 200, address
        assert len(answer.content) > 1000, address


def test_the_page_asks_no_validator_of_elsewhere(http):
    assert '"validatorUrl": null' in http.get("/docs").text


def test_there_is_no_second_page_that_does(http):
    assert http.get("/redoc").status_code == 404


def test_the_page_needs_no_key(settings_for, tmp_path):
    with running(settings_for(tmp_path, keys="required")) as world:
        for address in ("/docs", "/openapi.json", *loaded(world.http, "/docs")[1]):
            assert world.http.get(address).status_code == 200
