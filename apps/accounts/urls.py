"""Addresses of accounts, relative to ``/api/v1/``."""

from apps.accounts.api import audit, invitations, keys, people, plans, registration, sessions, teams
from apps.core.api.urls import both

app_name = "accounts"
urlpatterns = [
    *both("audit", audit.AuditView.as_view(), "audit"),
    *both("audit/<int:event>", audit.AuditEventView.as_view(), "audit-event"),
    *both("auth/register", registration.RegisterView.as_view(), "register"),
    *both("auth/login", sessions.LoginView.as_view(), "login"),
    *both("auth/refresh", sessions.RefreshView.as_view(), "refresh"),
    *both("auth/logout", sessions.LogoutView.as_view(), "logout"),
    *both("auth/me", sessions.MeView.as_view(), "me"),
    *both("keys", keys.KeysView.as_view(), "keys"),
    *both("keys/<slug:key>", keys.KeyView.as_view(), "key"),
    *both("keys/<slug:key>/rotate", keys.KeyRotationView.as_view(), "key-rotation"),
    *both("people", people.PeopleView.as_view(), "people"),
    *both("people/<str:username>", people.PersonView.as_view(), "person"),
    *both("plans", plans.PlansView.as_view(), "plans"),
    *both("plans/<slug:name>", plans.PlanView.as_view(), "plan"),
    *both("teams", teams.TeamsView.as_view(), "teams"),
    *both("teams/<slug:slug>", teams.TeamView.as_view(), "team"),
    *both(
        "teams/<slug:slug>/invitations",
        invitations.TeamInvitationsView.as_view(),
        "team-invitations",
    ),
    *both(
        "teams/<slug:slug>/invitations/<int:invitation>",
        invitations.TeamInvitationView.as_view(),
        "team-invitation",
    ),
    *both("invitations", invitations.InvitationsView.as_view(), "invitations"),
    *both("invitations/<int:invitation>", invitations.InvitationView.as_view(), "invitation"),
    *both("teams/<slug:slug>/members", teams.MembersView.as_view(), "members"),
    *both("teams/<slug:slug>/members/<str:username>", teams.MemberView.as_view(), "member"),
]
