"""POST auth/register: make an account for oneself."""

from http import HTTPStatus

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.api.permissions import Open
from apps.accounts.api.serializers import RegisteredSerializer, RegisterSerializer
from apps.accounts.services import throttles
from apps.accounts.services.registration import Newcomer, register
from apps.core.api.schema import problems


class RegisterView(APIView):
    """What is presented besides the body does not matter here."""

    authentication_classes = ()
    permission_classes = (Open,)

    @extend_schema(
        operation_id="register",
        summary="Make an account, where that is allowed",
        request=RegisterSerializer,
        responses={201: RegisteredSerializer, **problems(400, 403, 409, 429)},
        tags=["auth"],
        auth=[],
    )
    def post(self, request: Request) -> Response:
        throttles.throttle_registration()
        form = RegisterSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        made = register(Newcomer(**form.validated_data))
        body = {
            "username": made.user.username,
            "email": made.user.email,
            "teams": [team.slug for team in made.teams],
        }
        return Response(body, status=HTTPStatus.CREATED)
