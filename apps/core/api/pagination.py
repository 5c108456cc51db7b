"""Lists come in pages by cursor, newest first."""

from typing import Any

from django.core.exceptions import ValidationError
from rest_framework import exceptions
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request

from apps.core.errors import FieldProblem, Invalid


class NewestFirst(CursorPagination):
    ordering = "-id"
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200

    def paginate_queryset(
        self, queryset: Any, request: Request, view: Any = None
    ) -> list[Any] | None:
        """Return one page; a cursor that is none of ours is refused.

        DRF hands the position inside a cursor to the table's field as it came.
        """
        try:
            return super().paginate_queryset(queryset, request, view)
        except (exceptions.NotFound, ValueError, ValidationError) as error:
            detail = "This `cursor` is not one of ours. Follow `next` of the page before."
            raise Invalid(detail).at([FieldProblem("/cursor", detail)]) from error
