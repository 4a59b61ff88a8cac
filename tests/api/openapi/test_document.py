"""The service's description of itself: valid, complete, and true."""

import re

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from api.openapi.descriptions import DESCRIPTIONS
from tests.api.scopes import PUBLIC, SCOPES

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


def properties(document):
    """Every property of a schema: where it is, and what is said of it."""
    for name, schema in document["components"]["schemas"].items():
        for property_name, described in schema.get("properties", {}).items():
            yield f"{name}.{property_name}", described
    for method, path, operation in operations(document):
        for kind, body in operation.get("requestBody", {}).get("content", {}).items():
            for property_name, described in body["schema"].get("properties", {}).items():
                yield f"{method} {path} {kind} {property_name}", described


def parameters(document):
    for method, path, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            yield f"{method} {path} {parameter['name']}", parameter


def test_every_property_has_a_description_and_an_example(document):
    found = dict(properties(document))
    assert len(found) > 200
    assert [where for where, said in found.items() if not said.get("description", "").strip()] == []
    assert [where for where, said in found.items() if not said.get("examples")] == []


def test_every_parameter_has_a_description_and_an_example(document):
    found = dict(parameters(document))
    assert len(found) > 60
    assert [where for where, said in found.items() if not said.get("description", "").strip()] == []
    assert [where for where, said in found.items() if not said["schema"].get("examples")] == []


def test_every_example_is_what_its_schema_allows(document):
    schemas = dict(properties(document))
    schemas |= {where: parameter["schema"] for where, parameter in parameters(document)}
    faults = {}
    for where, schema in schemas.items():
        whole = {"components": document["components"], **schema}
        for example in schema["examples"]:
            for fault in Draft202012Validator(whole).iter_errors(example):
                faults[where] = fault.message
    assert faults == {}


def test_every_word_of_the_vocabulary_is_used(document):
    used = {where for where, _ in properties(document)} | {parameter["name"] for _, parameter in parameters(document)}
    names = {re.split(r"[. ]", where)[-1] for where in used}
    assert sorted(word for word in DESCRIPTIONS if word.rpartition(".")[2] not in names) == []


def test_operations_are_called_as_a_person_would_call_them(document):
    names = {(method, path): operation["operationId"] for method, path, operation in operations(document)}
    assert names["post", "/v1/models"] == "create_model"
    assert names["post", "/v1/models/{name}/predictions"] == "predict"
    assert [name for name in names.values() if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)] == []
    tags = {tag["name"] for tag in document["tags"] if tag["description"]}
    assert {tag for _, _, operation in operations(document) for tag in operation["tags"]} == tags


def test_every_operation_says_which_scope_it_needs(document):
    for method, path, operation in operations(document):
        route = f"{method.upper()} {path}"
        assert (route in PUBLIC) is ("security" not in operation), route
        if route in PUBLIC:
            continue
        assert {"HTTPBearer": [SCOPES[route].value]} in operation["security"], route
        assert f"scope `{SCOPES[route].value}`" in operation["description"], route


def test_headers_and_statuses_are_the_ones_that_are_given(document, world):
    http, name = world.http, world.model()
    listed = {operation["operationId"]: operation["responses"] for _, _, operation in operations(document)}
    answers = {
        "create_model": http.post("/v1/models", json={"name": f"{name}-2", "image_size": 8}),
        "create_batch": http.post(f"/v1/models/{name}/batches"),
        "get_current": http.get(f"/v1/models/{name}/current"),
        "get_model": http.get("/v1/models/nobody"),
        "promote": http.put(f"/v1/models/{name}/current", json={"version": 1}, headers={"If-Match": '"x"'}),
        "change_model": http.patch(f"/v1/models/{name}", content=b"x", headers={"Content-Type": "text/plain"}),
    }
    answers["get_current "] = http.get(f"/v1/models/{name}/current", headers={"If-None-Match": "*"})
    statuses = {operation: answer.status_code for operation, answer in answers.items()}
    assert list(statuses.values()) == [201, 201, 200, 404, 412, 415, 304]
    for operation, answer in answers.items():
        described = listed[operation.strip()][str(answer.status_code)]["headers"]
        own = {header for header in ("location", "etag", "retry-after", "x-request-id") if header in answer.headers}
        assert own == {header.lower() for header in described}, operation


def test_every_operation_names_the_statuses_of_its_kind(document):
    for method, path, operation in operations(document):
        statuses = operation["responses"].keys()
        route = f"{method.upper()} {path}"
        assert all(response["headers"]["X-Request-ID"] for response in operation["responses"].values())
        if route in SCOPES:
            assert {"401", "403", "429", "500", "503"} <= statuses, route
            assert "Retry-After" in operation["responses"]["429"]["headers"]
            assert "Retry-After" in operation["responses"]["503"]["headers"]
            assert ({"413", "415"} <= statuses) is ("requestBody" in operation), route
