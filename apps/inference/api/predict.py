"""The DRF skin of the prediction door: the address, its documentation, and nothing else.

The body goes to the door as it came. DRF's own authentication, parsing, negotiation and limits stay
out of the way, because the door does all of that, once, and from memory.
"""

from typing import Any

from django.http import HttpRequest, HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    inline_serializer,
)
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from apps.accounts.policies import ENVIRONMENTS
from apps.core.api.schema import ProblemSerializer
from apps.inference.api import door
from apps.inference.api.door import DoorReply, DoorRequest
from apps.registry.image_spec import IMAGE_TYPES

QUESTION = inline_serializer(
    "PredictQuestion",
    {
        "instances": serializers.ListField(
            child=serializers.JSONField(),
            required=False,
            help_text="Rows: an object by input name or column, or a list of numbers, each. An "
            'image stands in its field as `{"b64": "...", "content_type": "image/png"}`, the type '
            "optional, at most 10 MB of file.",
        ),
        "inputs": serializers.DictField(
            child=serializers.JSONField(),
            required=False,
            help_text="Columns: nested lists by input name, instead of `instances`.",
        ),
        "unit": serializers.CharField(
            required=False, max_length=200, help_text="Whom an experiment randomises."
        ),
        "id": serializers.CharField(
            required=False, max_length=200, help_text="Your own id; echoed and stored."
        ),
        "parameters": serializers.DictField(child=serializers.JSONField(), required=False),
    },
)
ANSWER = inline_serializer(
    "PredictAnswer",
    {
        "predictions": serializers.JSONField(
            help_text="In the form of the question: rows for rows (an object per row when the "
            "model has several outputs), columns for columns. NaN and Infinity are null. Where "
            'the signature names classes, a row of scores is `{"class": "7", "score": 0.98, '
            '"scores": {"0": 0.001, ...}}` and a label is its name.'
        ),
        "model": serializers.CharField(),
        "version": serializers.IntegerField(),
        "variant": serializers.CharField(allow_null=True),
        "prediction_id": serializers.UUIDField(),
        "cached": serializers.BooleanField(),
        "timing_ms": inline_serializer(
            "PredictTiming",
            {
                "total": serializers.FloatField(),
                "queue": serializers.FloatField(),
                "inference": serializers.FloatField(),
            },
        ),
        "id": serializers.CharField(required=False),
    },
)
REFUSALS = {
    400: "Bad JSON, an unknown or missing field, a wrong type or shape, too many rows; `errors` "
    "points at the places.",
    401: "No credential, or a bearer token that is bad, expired or revoked.",
    403: "An API key that is bad, expired or revoked, or lacks the scope, model or environment.",
    404: "No such model, or it belongs to another team.",
    409: "Nothing, or not this version, is released in the environment.",
    413: "The body is larger than 10 MB, or 14 MB for a model that takes images.",
    415: "The body is neither JSON nor, for a model with one image input, a PNG or JPEG file.",
    429: "Over a limit of the plan, the person or the address; see `Retry-After`. Every answer "
    "says in `RateLimit-*` how the caller stands.",
    502: "The model failed on this input.",
    503: "Too busy, or the model or its record is not available here; see `Retry-After`.",
    504: "Not ready before the deadline.",
}


class PredictView(APIView):
    """POST /api/v1/predict/{model}: ask a model's live release."""

    authentication_classes = ()
    permission_classes = ()
    throttle_classes = ()

    @property
    def default_response_headers(self) -> dict[str, str]:
        """Add nothing: the door says everything."""
        return {}

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Negotiate nothing: the reply is JSON whatever is accepted, as on the other skin."""

    @extend_schema(
        operation_id="predict",
        tags=["predict"],
        summary="Predict",
        description="Answers by the version that is released in the environment. At most 100 rows "
        "a call. Every answer is recorded under its `prediction_id`. To a model whose one input is "
        "an image, the body may also be the file itself, with its `Content-Type`.",
        request={"application/json": QUESTION, **dict.fromkeys(IMAGE_TYPES, OpenApiTypes.BINARY)},
        parameters=[
            OpenApiParameter(
                "environment",
                enum=ENVIRONMENTS,
                description="`production`, or the only environment of the key, when left out.",
            ),
            OpenApiParameter(
                "version",
                OpenApiTypes.INT,
                description="An arm of the live release; others need the right to try them.",
            ),
            OpenApiParameter("alias", description="A name for a version, instead of `version`."),
            OpenApiParameter(
                "X-Request-Timeout-Ms",
                OpenApiTypes.INT,
                location=OpenApiParameter.HEADER,
                description="How long you wait, within the model's own deadline.",
            ),
            OpenApiParameter(
                "X-Prediction-Source",
                enum=["try"],
                location=OpenApiParameter.HEADER,
                description="`try`: any ready version may answer, and the call counts as no "
                "traffic. Needs the right to try versions.",
            ),
        ],
        responses={
            200: ANSWER,
            **{
                (status, "application/problem+json"): OpenApiResponse(ProblemSerializer, words)
                for status, words in REFUSALS.items()
            },
        },
        examples=[
            OpenApiExample(
                "rows",
                {"instances": [[5.1, 3.5, 1.4, 0.2]]},
                request_only=True,
                media_type="application/json",
            ),
            OpenApiExample(
                "named rows",
                {"instances": [{"age": 41, "plan": "pro"}]},
                request_only=True,
                media_type="application/json",
            ),
            OpenApiExample(
                "image",
                {"instances": [{"image": {"b64": "iVBORw0KGgo..."}}]},
                request_only=True,
                media_type="application/json",
            ),
            OpenApiExample(
                "columns",
                {"inputs": {"x": [[5.1, 3.5, 1.4, 0.2]]}},
                request_only=True,
                media_type="application/json",
            ),
            OpenApiExample(
                "answer",
                {
                    "predictions": [{"label": 0, "probabilities": [0.97, 0.02, 0.01]}],
                    "model": "iris",
                    "version": 3,
                    "variant": None,
                    "prediction_id": "019365a2-6c1c-7b3e-9d0c-3a4f6f1e2b10",
                    "cached": False,
                    "timing_ms": {"total": 0.41, "queue": 0.0, "inference": 0.09},
                },
                response_only=True,
                status_codes=["200"],
            ),
        ],
    )
    def post(self, request: Request, model: str) -> HttpResponse:
        """Hand the request to the door."""
        return answered(request)

    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Let the door refuse other methods in its own words."""
        return answered(request)

    options = http_method_not_allowed  # no self-description beside the schema


def answered(request: Request) -> HttpResponse:
    """Pass a request of Django's through the door."""
    plain: HttpRequest = request._request  # noqa: SLF001 - DRF's name for Django's
    headers = {name.lower(): value for name, value in plain.headers.items()}
    try:
        door.require_small(headers)
        body = plain.body
    except Exception as error:  # noqa: BLE001 - told in the door's words
        return _http(door.refusal_of(error))
    return _http(
        door.answer(
            DoorRequest(
                method=plain.method or "",
                path=plain.path,
                query=plain.META.get("QUERY_STRING", ""),
                headers=headers,
                body=body,
            )
        )
    )


def _http(reply: DoorReply) -> HttpResponse:
    return HttpResponse(reply.body, status=reply.status, headers=dict(reply.headers))
