"""The OpenAPI document holds every address of the API, and none that is not one."""

import re

from drf_spectacular.generators import SchemaGenerator

from tests.contracts.test_access_table import _addresses

# Open words for probes, the document itself, and the answer to who guesses at a second version.
NOT_IN_IT = {
    ("GET", "/health"),
    ("GET", "/health/ready"),
    ("GET", "/health/live"),
    ("GET", "/api/schema"),
    ("GET", "/api/v2(?:/.*)?$"),
}


def test_the_document_and_the_urlconf_hold_the_same_addresses() -> None:
    document = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]  # untyped there
    documented = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
        if method in {"get", "post", "put", "patch", "delete"}
    }
    there = {
        (method, "/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route))
        for method, route in _addresses()
    }
    assert documented == there - NOT_IN_IT
    assert there >= NOT_IN_IT
    assert len(documented) > 40
