"""The screens of teams: who is in them with which role, their models, keys, usage, history."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.views.decorators.http import require_POST

from apps.accounts.admin import words as said
from apps.accounts.admin.door import AccountsAdmin, caller_of_request, teams_here
from apps.accounts.admin.invitations import invite_page, revoke
from apps.accounts.models import ApiKey, Membership, Team
from apps.accounts.policies import Action, Thing, may
from apps.accounts.selectors import (
    actor_of,
    key_state,
    keys_of,
    members_of,
    teams_of,
    user_called,
)
from apps.accounts.services import invitations, teams
from apps.accounts.snapshot import Role
from apps.core import sentences, words
from apps.core.errors import NotFound, PlatformError
from apps.core.models import Event

SHOWN_KEYS = 20
HISTORY = 12


class RoleForm(forms.Form):
    """A member's new role."""

    role = forms.ChoiceField(choices=Membership.RoleChoice.choices)


class MemberForm(RoleForm):
    """Somebody who joins a team."""

    user = forms.CharField(max_length=254)


@admin.register(Team)
class TeamAdmin(AccountsAdmin):
    exported_as, export_team = "team.exported", "pk"
    change_list_template = "admin/accounts/list.html"
    list_after_template = "admin/accounts/team/cells.html"
    change_form_template = "admin/accounts/team/page.html"
    add_form_template = "admin/accounts/team/add.html"
    list_display = ("title", "people", "model_number", "key_number", "since")
    search_fields = ("name", "slug")
    search_help_text = "Name of a team"
    ordering = ("name",)
    fields = ("slug", "name")
    empty_title = "No teams yet"
    empty_step = "Models belong to teams. A platform admin makes them and names their maintainers."
    add_words = "Make team"

    @admin.display(description="Team", ordering="name")
    def title(self, team: Team) -> str:
        return format_html(
            '<span class="mp-two"><span>{}</span><small class="mp-mono">{}</small></span>',
            team.name,
            team.slug,
        )

    @admin.display(description="Members")
    def people(self, team: Any) -> int:
        return int(team.member_count or 0)

    @admin.display(description="Models")
    def model_number(self, team: Team) -> str:
        return format_html('<span id="cell-team-models-{}">…</span>', team.pk)

    @admin.display(description="Keys in use")
    def key_number(self, team: Any) -> int:
        return int(team.living_keys or 0)

    @admin.display(description="Since", ordering="created")
    def since(self, team: Team) -> str:
        return words.ago(team.created)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Team]:
        members = _counted(Membership.objects.all())
        living = ApiKey.objects.filter(revoked_at__isnull=True, expires_at__gt=timezone.now())
        rows = teams_of(caller_of_request(request))
        return rows.annotate(member_count=members, living_keys=_counted(living))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("slug",) if obj else ()

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_module_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return may(caller_of_request(request), Action.TEAM_CREATE, Thing())

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is None:
            return self.has_module_permission(request)
        return may(caller_of_request(request), Action.TEAM_MANAGE, Thing(obj.pk))

    def get_urls(self) -> list[URLPattern]:
        guarded = self.admin_site.admin_view
        return [
            path(
                "<int:team>/members/",
                guarded(require_POST(self.add_member)),
                name="accounts_team_add_member",
            ),
            path(
                "<int:team>/members/<int:member>/role/",
                guarded(require_POST(self.change_role)),
                name="accounts_team_change_role",
            ),
            path(
                "<int:team>/members/<int:member>/remove/",
                guarded(require_POST(self.remove_member)),
                name="accounts_team_remove_member",
            ),
            path("<int:team>/invite/", guarded(self.invite), name="accounts_team_invite"),
            path(
                "<int:team>/invitations/<int:number>/revoke/",
                guarded(require_POST(self.revoke_invitation)),
                name="accounts_team_revoke_invitation",
            ),
            *super().get_urls(),
        ]

    def page_context(self, request: HttpRequest, found: Any) -> dict[str, Any]:
        return self._page(request, found) if found else {"title": "Make team"}

    def save_model(self, request: HttpRequest, obj: Team, form: Any, change: bool) -> None:
        actor = actor_of(caller_of_request(request))
        if change:
            teams.rename_team(obj, name=obj.name, actor=actor)
        else:
            teams.open_team(obj, actor=actor)

    def response_add(
        self, request: HttpRequest, obj: Team, post_url_continue: str | None = None
    ) -> HttpResponse:
        self.message_user(
            request, f"The team {obj.name} is made. Add its members.", messages.SUCCESS
        )
        return HttpResponseRedirect(_address(obj.pk))

    def response_change(self, request: HttpRequest, obj: Team) -> HttpResponse:
        self.message_user(request, f"The team is called {obj.name} now.", messages.SUCCESS)
        return HttpResponseRedirect(_address(obj.pk))

    def add_member(self, request: HttpRequest, team: int) -> HttpResponse:
        """Take somebody in, by name or email address."""
        found = self._managed(request, team)
        form = MemberForm(request.POST)

        def act() -> str:
            if not form.is_valid():
                raise NotFound("Name a person and choose a role.")
            name = form.cleaned_data["user"].strip()
            person = user_called(name)
            if person is None:
                raise NotFound(
                    f"Nobody is called `{name}`. A platform admin makes sign-ins under People."
                )
            role = Role(form.cleaned_data["role"])
            teams.add_member(found, person, role=role, actor=actor_of(caller_of_request(request)))
            return f"{person.username} is {role} of {found.name} now."

        return self._done(request, found, act)

    def change_role(self, request: HttpRequest, team: int, member: int) -> HttpResponse:
        """Give a member another role."""
        found = self._managed(request, team)
        form = RoleForm(request.POST)

        def act() -> str:
            one = _member(found, member)
            if not form.is_valid():
                raise NotFound("There is no such role.")
            role = Role(form.cleaned_data["role"])
            teams.change_role(one, role=role, actor=actor_of(caller_of_request(request)))
            return f"{one.user.username} is {role} of {found.name} now."

        return self._done(request, found, act)

    def remove_member(self, request: HttpRequest, team: int, member: int) -> HttpResponse:
        """Take a member out."""
        found = self._managed(request, team)

        def act() -> str:
            one = _member(found, member)
            teams.remove_member(one, actor=actor_of(caller_of_request(request)))
            return f"{one.user.username} is no longer in {found.name}."

        return self._done(request, found, act)

    def invite(self, request: HttpRequest, team: int) -> HttpResponse:
        """Invite somebody who has no account yet."""
        return invite_page(request, self._managed(request, team))

    def revoke_invitation(self, request: HttpRequest, team: int, number: int) -> HttpResponse:
        """Take an invitation back."""
        found = self._managed(request, team)
        return self._done(request, found, lambda: revoke(request, found, number))

    def _managed(self, request: HttpRequest, team: int) -> Team:
        found = teams_of(caller_of_request(request)).filter(pk=team).first()
        if found is None or not self.has_change_permission(request, found):
            raise Http404
        return found

    def _done(self, request: HttpRequest, team: Team, act: Any) -> HttpResponse:
        try:
            self.message_user(request, act(), messages.SUCCESS)
        except PlatformError as error:
            self.message_user(request, error.message, messages.ERROR)
        return HttpResponseRedirect(_address(team.pk))

    def _page(self, request: HttpRequest, team: Team) -> dict[str, Any]:
        caller = caller_of_request(request)
        managed = teams_here(request, Action.KEY_MANAGE)
        keys = keys_of(caller, managed=managed).filter(team=team).order_by("-created")
        now = timezone.now()
        may_manage = may(caller, Action.TEAM_MANAGE, Thing(team.pk))
        may_invite = may_manage and invitations.is_on()
        events = Event.objects.filter(team_id=team.pk).exclude(verb__in=sentences.QUIET)
        return {
            "team": team,
            "title": team.name,
            "members": members_of(team).order_by("user__username"),
            "roles": [(role.value, *text) for role, text in said.ROLES.items()],
            "may_manage": may_manage,
            "may_invite": may_invite,
            "invitations": invitations.open_ones(team)[:50] if may_invite else [],
            "keys": [(key, key_state(key, now)) for key in keys[:SHOWN_KEYS]],
            "may_issue": may(caller, Action.KEY_ISSUE, Thing(team.pk)),
            "may_audit": may(caller, Action.AUDIT_READ, Thing(team.pk)),
            "events": events.order_by("-id")[:HISTORY],
        }


def _counted(rows: QuerySet[Any]) -> Subquery:
    """Count a team's rows apart, so that two counts do not multiply each other."""
    mine = rows.filter(team=OuterRef("pk")).order_by().values("team")
    return Subquery(mine.annotate(number=Count("pk")).values("number"))


def _member(team: Team, pk: int) -> Membership:
    found = members_of(team).select_related("team").filter(pk=pk).first()
    if found is None:
        raise NotFound(f"This person was taken out of {team.name} meanwhile.")
    return found


def _address(team: int) -> str:
    return reverse("admin:accounts_team_change", args=[team])
