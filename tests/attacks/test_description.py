"""The whole OpenAPI description, fuzzed: no fault of the service, and no answer outside what is declared."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from storage.domain import Scope
from storage.requests import keys
from storage.settings import Settings
from tests.api.conftest import redis_url, settings_for
from tests.api.scopes import SCOPES
from tests.api.worlds import World, running

__all__ = ["redis_url", "settings_for"]  # fixtures
GATEWAY_TIMEOUT = 504


def no_fault_of_the_service(context: Any, answer: Any, case: Any) -> bool | None:
    """No 5xx, but for a deadline of the request's own that nobody could keep; the service's is thirty seconds."""
    return None if answer.status_code == GATEWAY_TIMEOUT else not_a_server_error(context, answer, case)


CHECKS = [
    no_fault_of_the_service,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 12  # of each operation and kind; benchmarks nothing, finds what a person overlooks


@pytest.fixture(scope="module", params=["without keys", "with keys"])
def attacked(
    request: pytest.FixtureRequest, settings_for: Callable[..., Settings], tmp_path_factory: Any
) -> Iterator[World]:
    """A service with a model that predicts, with keys and without."""
    options = {"keys": "required"} if request.param == "with keys" else {}
    with running(settings_for(tmp_path_factory.mktemp("attacked"), **options)) as world:
        with world.database.write() as connection:
            _, secret = keys.create(connection, name="fuzzer", scopes={Scope.ADMIN})
        world.http.headers["Authorization"] = f"Bearer {secret}"
        assert world.http.post("/v1/models", json={"name": "plants", "image_size": 8}).status_code == 201
        world.version("plants", "a", "b")
        yield world


def operation(attacked: World, route: str) -> Any:
    """One operation, as the service describes it."""
    method, path = route.split(" ")
    schema = schemathesis.openapi.from_url(f"{attacked.http.base_url}/openapi.json")
    return schema[path][method]


# Streams do not end; every other route of /v1, in the words of the description.
ROUTES = [route for route in SCOPES if not route.endswith("/events")]


@pytest.mark.parametrize("route", ROUTES)
def test_no_request_is_a_fault_of_the_service_or_outside_the_description(attacked: World, route: str) -> None:
    described = operation(attacked, route)
    key = {"Authorization": attacked.http.headers["Authorization"]}

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data(), valid=st.booleans())
    def attack(data: st.DataObject, valid: bool) -> None:
        mode = GenerationMode.POSITIVE if valid else GenerationMode.NEGATIVE
        try:
            case = data.draw(described.as_strategy(generation_mode=mode))
        except Unsatisfiable:  # nothing in this operation could be wrong
            assume(False)
        case.call_and_validate(headers=key, checks=CHECKS, timeout=60)

    attack()


@pytest.mark.parametrize("attacked", ["with keys"], indirect=True)
@pytest.mark.parametrize("route", ROUTES)
def test_without_its_key_a_guarded_service_says_so_and_nothing_else(attacked: World, route: str) -> None:
    described = operation(attacked, route)

    @settings(max_examples=3, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=described.as_strategy())
    def attack(case: Any) -> None:
        case.headers.pop("Authorization", None)
        answer = case.call_and_validate(checks=CHECKS, timeout=60)
        assert answer.status_code == 401

    attack()
