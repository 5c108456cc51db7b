"""The screen of teams, with their members."""

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from unfold.admin import TabularInline

from apps.accounts.admin.door import AccountsAdmin, caller_of_request
from apps.accounts.models import Membership, Team
from apps.accounts.policies import Action, Thing, may
from apps.accounts.selectors import actor_of, teams_of
from apps.accounts.services import teams
from apps.accounts.snapshot import Role


def _may_manage(request: HttpRequest, team: Team | None) -> bool:
    caller = caller_of_request(request)
    if team is None or team.pk is None:
        return may(caller, Action.TEAM_CREATE, Thing())
    return may(caller, Action.TEAM_MANAGE, Thing(team.pk))


class MemberForm(ModelForm):  # type: ignore[type-arg]  # generic only for the type checker
    """Whoever is in the team keeps the name; only the role changes."""

    class Meta:
        model = Membership
        fields = ("user", "role")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["user"].disabled = self.instance.pk is not None


class MemberInline(TabularInline):  # type: ignore[misc]  # unfold ships no types
    model = Membership
    form = MemberForm
    extra = 0

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        rows: QuerySet[Membership] = super().get_queryset(request)
        return rows.select_related("user").order_by("user__username")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return _may_manage(request, obj)

    has_change_permission = has_add_permission
    has_delete_permission = has_add_permission


@admin.register(Team)
class TeamAdmin(AccountsAdmin):
    list_display = ("name", "slug", "member_count", "created")
    search_fields = ("name", "slug")
    ordering = ("slug",)
    inlines = (MemberInline,)
    fields = ("slug", "name")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Team]:
        return teams_of(caller_of_request(request)).annotate(people=Count("memberships"))

    @admin.display(description="members")
    def member_count(self, team: Any) -> int:
        return int(team.people)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("slug",) if obj else ()

    def has_module_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_active and request.user.is_staff)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_module_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return _may_manage(request, None)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_module_permission(request) if obj is None else _may_manage(request, obj)

    def save_model(self, request: HttpRequest, obj: Team, form: Any, change: bool) -> None:
        actor = actor_of(caller_of_request(request))
        if change:
            teams.rename_team(obj, name=obj.name, actor=actor)
        else:
            teams.open_team(obj, actor=actor)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Give each change of the table of members to its action."""
        actor = actor_of(caller_of_request(request))
        formset.save(commit=False)
        for member in formset.deleted_objects:
            teams.remove_member(member, actor=actor)
        for member, _ in formset.changed_objects:
            kept = Membership.objects.select_related("user", "team").get(pk=member.pk)
            teams.change_role(kept, role=Role(member.role), actor=actor)
        for member in formset.new_objects:
            made = teams.add_member(form.instance, member.user, role=Role(member.role), actor=actor)
            member.pk = made.pk
