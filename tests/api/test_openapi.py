"""The service's description of itself: valid, complete, and true."""

import re

import pytest
from openapi_spec_validator import validate

METHODS = ("get", "post", "put", "patch", "delete")

# DESIGN's table, as far as this release goes.
ROUTES = """
POST /v1/models
GET /v1/models
GET /v1/models/{}
PATCH /v1/models/{}
DELETE /v1/models/{}
GET /v1/strategies
POST /v1/models/{}/increments
POST /v1/models/{}/batches
POST /v1/batches/{}/images
GET /v1/batches/{}
GET /v1/images/{}
GET /v1/increments/{}
GET /v1/increments/{}/events
POST /v1/increments/{}/cancel
POST /v1/increments/{}/retry
GET /v1/models/{}/versions
GET /v1/models/{}/versions/{}
GET /v1/models/{}/versions/{}/metrics
GET /v1/models/{}/metrics
GET /v1/models/{}/metrics.png
GET /v1/models/{}/current
PUT /v1/models/{}/current
DELETE /v1/models/{}/versions/{}
POST /v1/models/{}/predictions
GET /v1/models/{}/images/{}/prediction
GET /v1/models/{}/predictions
GET /v1/predictions/{}
GET /livez
GET /readyz
"""


@pytest.fixture(scope="module")
def document(shared_world):
    """The description, as the service gives it."""
    answer = shared_world.http.get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def operations(document):
    """Method and path of every operation, and what is said of it."""
    return [
        (method, path, described[method])
        for path, described in document["paths"].items()
        for method in METHODS
        if method in described
    ]


def test_it_is_valid(document):
    validate(document)


def test_every_reference_leads_somewhere(document):
    def references(node):
        if isinstance(node, dict):
            yield from (value for name, value in node.items() if name == "$ref")
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    found = set(references(document))
    assert found
    for reference in found:
        target = document
        assert reference.startswith("#/")
        for part in reference[2:].split("/"):
            target = target[part]


def test_every_route_of_the_contract_is_there(document):
    described = {f"{method.upper()} {re.sub(r'{[^}]*}', '{}', path)}" for method, path, _ in operations(document)}
    assert set(ROUTES.split("\n")) - {""} <= described


def test_every_error_is_a_problem_document(document):
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            if status.startswith("4") and path.startswith("/v2"):
                schema = response["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorOut"}, (method, path, status)
                assert list(response["content"]) == ["application/json"]
            elif status.startswith("4"):
                assert list(response["content"]) == ["application/problem+json"], (method, path, status)
                assert response["content"]["application/problem+json"]["schema"] == {
                    "$ref": "#/components/schemas/Problem"
                }


def test_every_operation_says_what_it_does_and_what_goes_wrong(document):
    for method, path, operation in operations(document):
        assert operation["description"].endswith("."), (method, path)
        if "{" in path:
            assert "404" in operation["responses"], (method, path)


def test_every_body_that_is_taken_is_described(document):
    for method, path, operation in operations(document):
        takes = method in {"put", "patch"} or (method == "post" and not path.endswith(("/cancel", "/retry")))
        assert ("requestBody" in operation) == takes, (method, path)


def test_names_of_operations_are_used_once(document):
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))


def test_errors_of_the_service_have_the_described_members(document, shared_world):
    required = set(document["components"]["schemas"]["Problem"]["required"])
    answer = shared_world.http.get("/v1/models/nobody")
    assert required <= set(answer.json())


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/models", "GET, HEAD, POST"),
        ("/v1/models/nobody", "DELETE, GET, HEAD, PATCH"),
        ("/v1/models/nobody/current", "GET, HEAD, PUT"),
        ("/v1/models/nobody/predictions", "GET, HEAD, POST"),
        ("/v2/models/nobody/infer", "POST"),
        ("/livez", "GET, HEAD"),
    ],
)
def test_a_method_that_is_not_taken_is_answered_with_those_that_are(http, path, methods):
    answer = http.request("TRACE", path)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == methods
