"""Encrypt the secrets of second factors with the present secret key."""

from django.core.management.base import BaseCommand

from apps.accounts.services import mfa


class Command(BaseCommand):
    help = (
        "After a change of MLP_SECRET_KEY: renew what the former key encrypted. May be run again."
    )

    def handle(self, **options: object) -> None:
        renewed = mfa.reseal_all()
        self.stdout.write(f"{renewed} secrets are encrypted with the present key")
