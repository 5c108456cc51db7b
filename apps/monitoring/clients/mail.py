"""Sends one mail through the operator's server, and says whether a failure may pass."""

import smtplib
import ssl
from http import HTTPStatus
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.message import BadHeaderError

from apps.core.errors import PlatformError


class MailServerAway(PlatformError):
    """The mail server does not answer, or says that it cannot now."""

    code = "mail_server_away"
    status = HTTPStatus.BAD_GATEWAY
    retryable = True


class MailRefused(PlatformError):
    """The mail server, or the mail's own form, says no for good."""

    code = "mail_refused"
    status = HTTPStatus.BAD_GATEWAY


def send(address: str, *, name: str, title: str, body: str, url: str) -> None:
    """Send one mail.

    Args:
        address: Whom to.
        name: The message's own name, the same whenever it is sent: mail servers know it again.
        title: The subject, one line.
        body: Plain text.
        url: Path of the page where one acts.

    Raises:
        MailServerAway: Later may help.
        MailRefused: It never will.
    """
    host = urlsplit(settings.PUBLIC_URL).hostname or "localhost"
    message = EmailMessage(
        subject=title,
        body=f"{body}\n\n{settings.PUBLIC_URL}{url}\n\n-- \nSent by mlplatform. The bell in the "
        f"admin holds the same news: {settings.PUBLIC_URL}/admin/\n",
        to=[address],
        headers={
            "Message-ID": f"<notification-{name}@{host}>",
            "Auto-Submitted": "auto-generated",
        },
    )
    try:
        message.send(fail_silently=False)
    except (smtplib.SMTPException, OSError, BadHeaderError, UnicodeError) as error:
        raise _said(error) from error


def _said(error: Exception) -> PlatformError:
    """Read an SMTP failure: codes of 500 and above are final, whatever else may pass."""
    code = _code(error)
    if isinstance(error, BadHeaderError | UnicodeError):
        return MailRefused("The mail cannot be written: its subject or address holds a wrong sign.")
    if isinstance(error, ssl.SSLCertVerificationError):
        return MailRefused("The mail server's certificate is not good for its name.")
    if isinstance(error, smtplib.SMTPNotSupportedError) or code >= 500:
        return MailRefused(
            f"The mail server refuses the mail (code {code}). Check MLP_EMAIL_URL, MLP_EMAIL_FROM "
            "and the person's address."
        )
    return MailServerAway("The mail server does not take the mail now; it is tried again later.")


def _code(error: Exception) -> int:
    if isinstance(error, smtplib.SMTPResponseException):
        return error.smtp_code
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return max((int(code) for code, _ in error.recipients.values()), default=0)
    return 0
