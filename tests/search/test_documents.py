"""The API's own description: complete, self-contained, and true about addresses."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

OPERATIONS = {
    ("/admin/sync-credits", "post"),
    ("/admin/topup", "post"),
    ("/api/v1/credits", "get"),
    ("/api/v1/download", "get"),
    ("/api/v1/fields", "get"),
    ("/api/v1/health", "get"),
    ("/api/v1/health/ready", "get"),
    ("/api/v1/person/{person_id}", "get"),
    ("/api/v1/query", "post"),
    ("/api/v1/search", "get"),
    ("/api/v1/usage", "get"),
    ("/health", "get"),
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    response = Client().get("/api/schema")
    assert response.status_code == 200
    found: dict[str, Any] = json.loads(response.content)
    return found


def test_schema_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")


def test_schema_is_valid_and_made_without_a_warning(tmp_path: Path) -> None:
    call_command("spectacular", validate=True, fail_on_warn=True, file=str(tmp_path / "schema.yaml"))


def test_schema_describes_each_operation_once(document: dict[str, Any]) -> None:
    described = {(path, method) for path, operations in document["paths"].items() for method in operations}
    assert described >= OPERATIONS


def test_schema_has_no_two_operations_of_one_name(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))


def test_every_reference_in_the_schema_leads_somewhere(document: dict[str, Any]) -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [found for value in node.values() for found in references(value)]
        return [found for value in node for found in references(value)] if isinstance(node, list) else []

    for reference in set(references(document)):
        node: Any = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_the_query_documents_every_error_it_answers_with(document: dict[str, Any]) -> None:
    responses = document["paths"]["/api/v1/query"]["post"]["responses"]
    assert set(responses) == {str(s) for s in (200, 400, 401, 402, 403, 405, 409, 413, 415, 422, 429, 500, 503, 504)}


def test_every_key_endpoint_asks_for_the_key_in_its_header(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["ApiKey"] == {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
    }
    for path in ("query", "search", "download", "fields", "credits", "usage"):
        (operation,) = document["paths"][f"/api/v1/{path}"].values()
        assert operation["security"] == [{"ApiKey": []}]


def test_schema_comes_as_yaml_when_asked_for() -> None:
    response = Client().get("/api/schema", headers={"accept": "application/vnd.oai.openapi"})
    assert response.content.startswith(b"openapi: 3.1")


def test_docs_load_nothing_from_elsewhere() -> None:
    page = Client().get("/api/docs").content.decode()
    assert "swagger-ui" in page
    assert "http://" not in page
    assert "https://" not in page
    assert "<script>" not in page


def test_docs_script_comes_from_an_address_of_its_own() -> None:
    response = Client().get("/api/docs?script=")
    assert response["Content-Type"] == "application/javascript"
    assert b"/api/schema" in response.content


@pytest.mark.usefixtures("committed_db")  # the end of a response looks at connections that other tests have opened
@pytest.mark.parametrize("name", ["swagger-ui-bundle.js", "swagger-ui-standalone-preset.js", "swagger-ui.css"])
def test_docs_assets_are_served_here(name: str) -> None:
    response: Any = Client().get(f"/static/drf_spectacular_sidecar/swagger-ui-dist/{name}")
    assert response.status_code == 200
    assert b"".join(response.streaming_content)
    response.close()


def test_the_short_docs_address_leads_to_the_docs() -> None:
    response = Client().get("/docs")
    assert (response.status_code, response["Location"]) == (302, "/api/docs")


@pytest.mark.parametrize("address", ["/api/schema", "/api/docs", "/api/docs?script="])
@pytest.mark.parametrize("accept", ["image/png", "nonsense", "text/html"])
def test_documents_are_answered_whatever_is_accepted(address: str, accept: str) -> None:
    assert Client().get(address, headers={"accept": accept}).status_code == 200
