"""Pages of accounts, relative to ``/admin/me/``: for people who are signed in there."""

from typing import Any

from django.contrib import admin
from django.urls import path

from apps.accounts.pages import account

app_name = "accounts-pages"
_account: Any = admin.site.admin_view(account.account)
_end_others: Any = admin.site.admin_view(account.end_others)
urlpatterns = [
    path("", _account, name="account"),
    path("end-others/", _end_others, name="end-others"),
]
