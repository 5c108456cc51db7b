"""Posts to an incoming webhook of Slack or of what understands its messages."""

from django.conf import settings

from apps.core import http
from apps.core.errors import Invalid


def post(title: str, body: str, path: str) -> None:
    """Post one message with a link.

    Raises:
        Invalid: No webhook is set.
        PlatformError: It could not be delivered; see ``core.http``.
    """
    if not settings.SLACK_WEBHOOK_URL:
        raise Invalid("No webhook is set. Set MLP_SLACK_WEBHOOK_URL.")
    text = f"*{escaped(title)}*\n{escaped(body)}\n<{settings.PUBLIC_URL}{path}|Open>"
    answer = http.post_json(settings.SLACK_WEBHOOK_URL, {"text": text})
    http.require_success(answer, "The channel's webhook")


def escaped(text: str) -> str:
    """Take from a text what Slack reads as a link or a call to everybody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
