"""What the OpenAPI document says of the upload door, which itself stands in front of Django."""

from typing import NoReturn

from drf_spectacular.utils import extend_schema
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.views import APIView

from apps.core.api.schema import problems
from apps.core.errors import Unavailable
from apps.registry.api.serializers import UploadSerializer, VersionSerializer


class UploadView(APIView):
    parser_classes = (MultiPartParser,)

    @extend_schema(
        operation_id="upload_version",
        summary="Upload a model's file; the version is judged in the background",
        description=(
            "Send `name` and the other fields before `file`: what they say is then checked before "
            "the bytes come. Ask `urls.status` until `state` is `ready` or `rejected`; a rejected "
            "version says why in `report.reason`."
        ),
        request={"multipart/form-data": UploadSerializer},
        responses={
            202: VersionSerializer,
            **problems(400, 401, 403, 404, 408, 409, 413, 415, 503, 507),
        },
        tags=["versions"],
    )
    def post(self, request: Request) -> NoReturn:
        raise Unavailable(
            "Uploads are taken by the platform's ASGI application, which does not stand in front "
            "of this server. Start the platform with `make run`."
        )
