"""Screens of people, teams and keys."""

from apps.accounts.admin import audit, keys, people, plans, sign_ins, teams

__all__ = ["audit", "keys", "people", "plans", "sign_ins", "teams"]
