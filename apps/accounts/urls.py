"""Addresses of accounts, relative to ``/api/v1/``."""

from apps.accounts.api import keys, sessions, teams
from apps.core.api.urls import both

app_name = "accounts"
urlpatterns = [
    *both("auth/login", sessions.LoginView.as_view(), "login"),
    *both("auth/refresh", sessions.RefreshView.as_view(), "refresh"),
    *both("auth/logout", sessions.LogoutView.as_view(), "logout"),
    *both("auth/me", sessions.MeView.as_view(), "me"),
    *both("keys", keys.KeysView.as_view(), "keys"),
    *both("keys/<slug:key>", keys.KeyView.as_view(), "key"),
    *both("teams", teams.TeamsView.as_view(), "teams"),
    *both("teams/<slug:slug>", teams.TeamView.as_view(), "team"),
    *both("teams/<slug:slug>/members", teams.MembersView.as_view(), "members"),
    *both("teams/<slug:slug>/members/<str:username>", teams.MemberView.as_view(), "member"),
]
