"""Screens of people, teams and keys."""

from apps.accounts.admin import keys, people, teams

__all__ = ["keys", "people", "teams"]
