"""The OpenAPI document holds for whatever can be sent: schemathesis makes requests from it and judges the answers."""

from typing import Any

import hypothesis
import pytest

from tests.serving.http.processes import ServerProcess

OPERATIONS = [
    ("POST", "/search"),
    ("POST", "/embed"),
    ("GET", "/verticals"),
    ("GET", "/items/{id}/thumbnail"),
    ("GET", "/items/{id}"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("GET", "/problems/{name}"),
]

CAN_BE_WRONG = [("POST", "/search"), ("POST", "/embed"), ("GET", "/items/{id}/thumbnail")]
"""Elsewhere every request that reaches the route is right."""


@pytest.fixture(scope="module")
def document(server: ServerProcess) -> Any:
    import schemathesis  # here alone: one test process of several needs it
    from schemathesis.checks import load_all_checks

    load_all_checks()
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")


def test_the_document_names_every_operation_with_an_example(server: ServerProcess) -> None:
    document = server.request("GET", "/openapi.json").json()
    found = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert found == set(OPERATIONS)
    search = document["paths"]["/search"]["post"]
    assert document["components"]["schemas"]["SearchForm"]["properties"]["box"]["examples"]
    for status in ("400", "408", "413", "415", "422", "503", "504"):
        assert search["responses"][status]["content"]["application/problem+json"]["examples"]


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_status_is_documented(server: ServerProcess, photo: bytes, method: str, path: str) -> None:
    known = server.request("GET", "/openapi.json").json()["paths"][path][method.lower()]["responses"]
    assert {"421", "500"} <= set(known)
    for name in ("p4-1", "nothing", "%00"):
        for query in ("", "?size_px=5000", "?unknown=1"):
            asked = path.replace("{id}", name).replace("{name}", name) + query
            sent = photo if method == "POST" else None
            answers = [
                server.request(method, asked, photo=sent, headers={"Host": host}) for host in ("localhost", "a.b")
            ]
            assert {str(answer.status) for answer in answers} <= set(known), asked


CASES = [
    *((*operation, "POSITIVE") for operation in OPERATIONS),
    *((*operation, "NEGATIVE") for operation in OPERATIONS if operation in CAN_BE_WRONG),
]


@pytest.mark.parametrize(("method", "path", "mode"), CASES)
@pytest.mark.parametrize("examples", [10, pytest.param(300, marks=pytest.mark.slow)])
def test_answers_are_as_documented(
    document: Any, photo: bytes, method: str, path: str, mode: str, examples: int
) -> None:
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

    strategy = document[path][method].as_strategy(generation_mode=GenerationMode[mode])

    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=strategy)
    def check(case: Any) -> None:
        if mode == "POSITIVE" and isinstance(case.body, dict) and "photo" in case.body:
            case.body["photo"] = photo
        # What is asked for need not exist: an item, a vertical, the half of the photo that a box covers. And a form
        # holds text alone: a brand that was meant to be wrong by being `true` is a brand called "true".
        case.call_and_validate(excluded_checks=[positive_data_acceptance, negative_data_rejection])

    check()
