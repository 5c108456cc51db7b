"""The screens of plans: what keys and people may use up. For platform admins."""

from http import HTTPStatus
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import F, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from unfold.admin import ModelAdmin
from unfold.decorators import action
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from apps.accounts.admin.door import AccountsAdmin, caller_of_request
from apps.accounts.models import Plan, User
from apps.accounts.policies import Action, Thing, may
from apps.accounts.selectors import actor_of, plans_with_use
from apps.accounts.services import plans
from apps.accounts.snapshot import CountedBy
from apps.core.errors import PlatformError

# Label and help of each field, in our words.
SAID = {
    "name": ("Short name", "For addresses: lower-case letters, digits, hyphens. It stays."),
    "title": ("Title", "As people read it."),
    "requests_per_minute": ("Requests per minute", "Empty is no limit."),
    "rows_per_minute": (
        "Predictions per minute",
        "A call has as many as it has rows. Empty is no limit.",
    ),
    "rows_per_day": ("Predictions per day", "From midnight to midnight, UTC. Empty is no limit."),
    "rows_per_call": (
        "Rows per call",
        "Empty is what the installation allows to everybody (MLP_MAX_ROWS).",
    ),
    "counted_by": ("Counted", "Whose calls add up."),
    "is_offered": (
        "Offered",
        "Maintainers may give it to keys of their teams. A platform admin may give any plan.",
    ),
}
NUMBERS = ("requests_per_minute", "rows_per_minute", "rows_per_day", "rows_per_call")


class DeleteForm(BaseDialogForm):  # type: ignore[misc]  # unfold ships no types
    reason = forms.CharField(
        max_length=500, widget=UnfoldAdminTextInputWidget, help_text="Kept in the history."
    )


@admin.register(Plan)
class PlanAdmin(AccountsAdmin):
    exported_as = "plan.exported"
    change_list_template = "admin/accounts/list.html"
    list_display = ("plan", *(f"of_{name}" for name in NUMBERS), "counted", "offered", "used_by")
    ordering = (F("requests_per_minute").asc(nulls_last=True), "name")
    search_fields = ("name", "title")
    search_help_text = "Name of a plan"
    sortable_by = ()
    actions_detail = ("delete_plan",)
    empty_title = "No plans yet"
    empty_step = "A plan says what a key may use up."
    add_words = "Make plan"
    fieldsets = (
        (None, {"fields": ("name", "title")}),
        (
            "What it allows",
            {
                "fields": NUMBERS,
                "description": "A change holds for all that are on the plan within seconds.",
            },
        ),
        ("How", {"fields": ("counted_by", "is_offered")}),
    )

    @admin.display(description="Plan")
    def plan(self, plan: Plan) -> str:
        return plan.title

    @admin.display(description="Requests/min")
    def of_requests_per_minute(self, plan: Plan) -> str:
        return _number(plan.requests_per_minute)

    @admin.display(description="Predictions/min")
    def of_rows_per_minute(self, plan: Plan) -> str:
        return _number(plan.rows_per_minute)

    @admin.display(description="Predictions/day")
    def of_rows_per_day(self, plan: Plan) -> str:
        return _number(plan.rows_per_day)

    @admin.display(description="Rows/call")
    def of_rows_per_call(self, plan: Plan) -> str:
        return _number(plan.rows_per_call)

    @admin.display(description="Counted")
    def counted(self, plan: Plan) -> str:
        return "by key" if plan.counted_by == CountedBy.KEY else "by person"

    @admin.display(description="Offered")
    def offered(self, plan: Plan) -> str:
        return "to maintainers" if plan.is_offered else "by platform admins only"

    @admin.display(description="On it")
    def used_by(self, plan: Any) -> str:
        keys = f"{plan.key_count:,} key{'' if plan.key_count == 1 else 's'}"
        people = "1 person" if plan.person_count == 1 else f"{plan.person_count:,} people"
        return f"{keys}, {people}"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Plan]:
        return plans_with_use()

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Plans hold for every team; whoever only needs to know them sees them on the keys."""
        if not super().has_module_permission(request):
            return False
        return may(caller_of_request(request), Action.PLAN_WRITE, Thing())

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_module_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_module_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_module_permission(request)

    def has_plan_delete_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Offer it for plans that the platform does not give by itself."""
        name = str(getattr(object_id, "pk", object_id))
        return self.has_module_permission(request) and name not in plans.BUILT_IN

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("name",) if obj else ()

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Say each field in our words."""
        field: Any = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None and db_field.name in SAID:
            field.label, field.help_text = SAID[db_field.name]
        return field

    def save_model(self, request: HttpRequest, obj: Plan, form: Any, change: bool) -> None:
        actor, values = actor_of(caller_of_request(request)), dict(form.cleaned_data)
        if change:
            saved = plans.change_plan(obj.pk, changes=values, actor=actor)
        else:
            name = values.pop("name")
            values["counted_by"] = CountedBy(values["counted_by"])
            saved = plans.make_plan(name, wish=plans.PlanWish(**values), actor=actor)
        obj.__dict__.update(saved.__dict__)

    @action(  # type: ignore[untyped-decorator]  # unfold ships no types
        description="Delete plan",
        permissions=["plan_delete"],
        dialog={
            "title": "Delete plan",
            "description": "Only a plan that no key and no person is on can be deleted.",
            "form_class": DeleteForm,
            "form_submit_text": "Delete plan",
        },
    )
    def delete_plan(self, request: HttpRequest, form: DeleteForm, object_id: str) -> HttpResponse:
        actor, reason = actor_of(caller_of_request(request)), form.cleaned_data["reason"]
        url = reverse("admin:accounts_plan_changelist")
        try:
            plans.delete_plan(object_id, actor=actor, reason=reason)
        except PlatformError as error:
            self.message_user(request, error.message, messages.ERROR)
            url = reverse("admin:accounts_plan_change", args=[object_id])
        else:
            self.message_user(request, f"The plan {object_id} is deleted.", messages.SUCCESS)
        return HttpResponse(status=HTTPStatus.OK, headers={"HX-Redirect": url})


class GivePlanForm(BaseDialogForm):  # type: ignore[misc]  # unfold ships no types
    plan = forms.ModelChoiceField(
        Plan.objects.order_by("title"),
        empty_label=None,
        widget=UnfoldAdminSelectWidget,
        help_text="Holds for tokens within seconds, and for keys that are made from now on.",
    )


class GivesPlan(ModelAdmin):  # type: ignore[misc]  # unfold ships no types
    """The part of the people's screen that puts somebody on a plan."""

    def has_give_plan_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return may(caller_of_request(request), Action.PLAN_WRITE, Thing())

    @action(  # type: ignore[untyped-decorator]  # unfold ships no types
        description="Give plan",
        permissions=["give_plan"],
        dialog={
            "title": "Give plan",
            "description": "What calls with the person's tokens may use up.",
            "form_class": GivePlanForm,
            "form_submit_text": "Give plan",
        },
    )
    def give_plan(self, request: HttpRequest, form: GivePlanForm, object_id: str) -> HttpResponse:
        user, plan = get_object_or_404(User, pk=object_id), form.cleaned_data["plan"]
        plans.give_plan(user, name=plan.pk, actor=actor_of(caller_of_request(request)))
        self.message_user(request, f"{user.username} is on {plan.title}.", messages.SUCCESS)
        url = reverse("admin:accounts_user_change", args=[user.pk])
        return HttpResponse(status=HTTPStatus.OK, headers={"HX-Redirect": url})


def _number(limit: int | None) -> str:
    return "no limit" if limit is None else f"{limit:,}"
