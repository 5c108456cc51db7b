"""Screens of people, teams and keys."""

from apps.accounts.admin import audit, keys, people, teams

__all__ = ["audit", "keys", "people", "teams"]
