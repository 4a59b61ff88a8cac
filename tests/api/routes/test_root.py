"""The root of the API: a browser is sent to the dashboard."""

from pathlib import Path

import pytest

from tests.api.worlds import problem, running


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://pages.example/accrete", "https://pages.example/accrete"),
        ("http://0.0.0.0:8001", "http://127.0.0.1:8001"),  # which is how the one who asks has reached the API
        ("http://[::]:8001", "http://127.0.0.1:8001"),
    ],
)
def test_a_browser_is_sent_to_the_dashboard(settings_for, tmp_path: Path, url: str, sent: str):
    with running(settings_for(tmp_path, dashboard_url=url)) as world:
        answer = world.http.get("/", follow_redirects=False)
        assert (answer.status_code, answer.headers["Location"]) == (307, sent)


def test_without_a_dashboard_there_is_no_page(http):
    assert "/docs" in problem(http.get("/"), 404, "not-found")["detail"]
