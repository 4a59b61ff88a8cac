"""The type of every problem leads to a page that the service has itself."""

import re
from pathlib import Path

import pytest

from api.http.problem_kinds import KINDS, STATUS
from storage import errors
from storage.errors import AccreteError
from tests.api.worlds import problem, running

PAGE = Path(__file__).parents[3] / "docs" / "problems.md"


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_has_a_page_that_says_what_it_means_and_what_to_do(http, kind):
    answer = http.get(f"/problems/{kind}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert str(int(KINDS[kind].status)) in answer.text
    assert len(re.findall(r"<p>", answer.text)) == 3


def test_every_page_is_listed(http):
    listed = re.findall(r'<a href="problems/([^"]+)">', http.get("/problems").text)
    assert listed == list(KINDS)
    assert len(listed) > 40


def test_every_error_that_routes_raise_is_among_them():
    """By its name, as `problem` documents have it; what never crosses HTTP has none."""
    raised = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AccreteError)]
    names = {re.sub(r"(?<!^)([A-Z])", r"-\1", kind.__name__).lower() for kind in raised if kind is not AccreteError}
    unlisted = names - KINDS.keys()
    assert not any(set(getattr(errors, _camel(name)).__mro__) & STATUS.keys() for name in unlisted)
    assert len(unlisted) <= 2


def _camel(name):
    return "".join(part.title() for part in name.split("-"))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/models/nobody", 404), ("GET", "/nothing", 404), ("PUT", "/livez", 405), ("POST", "/v1/models", 415)],
)
def test_a_type_that_is_sent_leads_there(http, method, path, status):
    answer = http.request(method, path, content=b"x" if method == "POST" else None)
    assert answer.status_code == status
    assert http.get(answer.json()["type"]).status_code == 200


def test_a_type_that_is_not_there_is_a_problem_itself(http):
    problem(http.get("/problems/so-and-so"), 404, "not-found")


def test_pages_need_no_key(settings_for, tmp_path):
    with running(settings_for(tmp_path, keys="required")) as world:
        refused = world.http.get("/v1/models").json()
        assert world.http.get(refused["type"]).status_code == 200


def test_the_guide_lists_every_type():
    listed = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| (.*) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    assert listed == [(name, str(int(kind.status)), kind.meaning, kind.remedy) for name, kind in KINDS.items()]
