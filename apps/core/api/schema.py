"""What all doors say alike in the OpenAPI document."""

from http import HTTPStatus
from typing import Any

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, inline_serializer
from rest_framework import serializers

Endpoint = tuple[str, str, str, Any]


class FieldProblemSerializer(serializers.Serializer[Any]):
    pointer = serializers.CharField(help_text="RFC 6901 pointer into the body.")
    detail = serializers.CharField()


class ProblemSerializer(serializers.Serializer[Any]):
    """An error as problem+json (RFC 9457)."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    code = serializers.CharField(help_text="Stable; programs may decide by it.")
    detail = serializers.CharField(help_text="A sentence for people: what happened, what helps.")
    request_id = serializers.CharField()
    errors = FieldProblemSerializer(many=True, required=False)  # type: ignore[assignment]  # a field


def problems(*statuses: int) -> dict[Any, Any]:
    """Return the documented errors of a door, by status."""
    return {
        (status, "application/problem+json"): OpenApiResponse(
            ProblemSerializer, HTTPStatus(status).phrase
        )
        for status in statuses
    }


PAGE_PARAMETERS = [
    OpenApiParameter("cursor", str, description="From `next` or `previous` of another page."),
    OpenApiParameter("page_size", int, description="At most 200."),
]


def page_of(one: type[serializers.BaseSerializer[Any]], name: str) -> Any:
    """Return the documented shape of one page of a list."""
    return inline_serializer(
        name,
        {
            "next": serializers.URLField(allow_null=True),
            "previous": serializers.URLField(allow_null=True),
            "results": one(many=True),
        },
    )


def documented(endpoints: list[Endpoint]) -> list[Endpoint]:
    """Leave out second addresses of the same doors; a preprocessing hook of drf-spectacular."""
    return [one for one in endpoints if not one[0].endswith("/") and not _is_alias(one[0])]


def _is_alias(path: str) -> bool:
    return path.startswith("/api/") and not path.startswith("/api/v1/")


def with_problems(result: Any, **_: Any) -> Any:
    """Say of every operation that whatever else it answers is a problem; a postprocessing hook.

    Limits, a database that is away and a lost credential can meet any of them.
    """
    problem = {"$ref": "#/components/schemas/Problem"}
    other = {
        "description": "Any other error.",
        "content": {"application/problem+json": {"schema": problem}},
    }
    for operations in result["paths"].values():
        for one in operations.values():
            if isinstance(one, dict) and "responses" in one:
                one["responses"].setdefault("default", other)
    return result
