"""Inviting somebody on a page: the form and the open ones, then the link, shown once."""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse

from apps.accounts.admin import words as said
from apps.accounts.admin.door import caller_of_request
from apps.accounts.models import Invitation, Membership, Team
from apps.accounts.selectors import actor_of
from apps.accounts.services import invitations
from apps.accounts.snapshot import Role
from apps.core.errors import NotFound, PlatformError


class InviteForm(forms.Form):
    """Whom to invite."""

    email = forms.EmailField(max_length=254)


class TeamInviteForm(InviteForm):
    """Whom to invite, and as what."""

    role = forms.ChoiceField(choices=Membership.RoleChoice.choices)


def invite_page(request: HttpRequest, team: Team | None) -> HttpResponse:
    """Draw the form, or the link of the invitation that was made."""
    form = _form(request, team)
    refusal = ""
    if request.method == "POST" and form.is_valid():
        try:
            return _made(request, team, form)
        except PlatformError as error:
            refusal = " ".join([error.message, *(one.detail for one in error.problems)])
    context = {
        **_shared(request, team),
        "title": f"Invite somebody to {team.name}" if team else "Invite somebody",
        "form": form,
        "refusal": refusal,
        "roles": [(role.value, *text) for role, text in said.ROLES.items()],
        "open": invitations.open_ones(team)[:50],
    }
    return TemplateResponse(request, "admin/accounts/invite.html", context)


def revoke(request: HttpRequest, team: Team | None, number: int) -> str:
    """Take an invitation of the team (or one without) back; return what to say.

    Raises:
        PlatformError: It is not there, or was used meanwhile.
    """
    found = Invitation.objects.filter(team=team, pk=number).first()
    if found is None:
        raise NotFound("There is no such invitation.")
    invitations.revoke(found, actor=actor_of(caller_of_request(request)))
    return f"The invitation of {found.email} is revoked; its link opens nothing any more."


def _form(request: HttpRequest, team: Team | None) -> InviteForm:
    kind = TeamInviteForm if team else InviteForm
    return kind(request.POST) if request.method == "POST" else kind()


def _made(request: HttpRequest, team: Team | None, form: InviteForm) -> HttpResponse:
    made, text = invitations.invite(
        email=form.cleaned_data["email"],
        team=team,
        role=Role(form.cleaned_data["role"]) if team else None,
        actor=actor_of(caller_of_request(request)),
    )
    context = {
        **_shared(request, team),
        "title": f"{made.email} is invited",
        "invitation": made,
        "link": invitations.link(text),
    }
    return TemplateResponse(request, "admin/accounts/invited.html", context)


def _shared(request: HttpRequest, team: Team | None) -> dict[str, Any]:
    back = (
        reverse("admin:accounts_team_change", args=[team.pk])
        if team
        else reverse("admin:accounts_user_changelist")
    )
    return {**admin.site.each_context(request), "team": team, "back": back}
