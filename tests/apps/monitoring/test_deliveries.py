"""A message leaves at most once, is tried again only when that can help, and holds no tricks."""

import smtplib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from django.core import mail
from django.db import IntegrityError, transaction
from django.utils import timezone

from apps.accounts.models import Membership
from apps.accounts.services import teams
from apps.accounts.snapshot import Role
from apps.core import events, http, work
from apps.core.models import Work
from apps.monitoring.clients import mail as mailer
from apps.monitoring.clients import slack
from apps.monitoring.models import Delivery
from apps.monitoring.services import news
from apps.monitoring.tasks import WAITS
from tests.factories.accounts import SYSTEM, make_member, make_team, make_user

pytestmark = pytest.mark.django_db


# The number of an event that is gone.
PURGED = 10**12


class Channel:
    """A webhook on loopback that keeps what it got and answers as it is told."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.status = 200
        self.got: list[tuple[bytes, Any]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                line, _ = self._socket.accept()
            except OSError:
                return
            with line, line.makefile("rb") as reader:
                self._answer(line, reader)

    def _answer(self, line: socket.socket, reader: Any) -> None:
        head, length = reader.readline(), 0
        while (row := reader.readline()) not in {b"\r\n", b""}:
            if row.lower().startswith(b"content-length:"):
                length = int(row.split(b":")[1])
        self.got.append((head.strip(), orjson.loads(reader.read(length))))
        line.sendall(f"HTTP/1.1 {self.status} X\r\ncontent-length: 0\r\n\r\n".encode())

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def channel(settings: Any) -> Iterator[Channel]:
    server = Channel()
    settings.SLACK_WEBHOOK_URL = f"http://127.0.0.1:{server.port}/services/T0/S3CRET"
    settings.OUTBOUND_ALLOW = frozenset({f"127.0.0.1:{server.port}"})
    settings.PUBLIC_URL = "https://ml.example.org"
    yield server
    server.close()


def a_post(**columns: Any) -> Delivery:
    given = {"channel": "slack", "event_id": PURGED, "title": "wine 4 is ready", "body": "Try it."}
    return Delivery.objects.create(
        **{**given, "url": "/admin/x/", "created": timezone.now(), **columns}
    )


def a_mail(**columns: Any) -> Delivery:
    person = columns.pop("person", None) or make_user("mara")
    return a_post(channel="email", person=person, **columns)


def run(delivery: Delivery) -> Work:
    row = work.enqueue(news.DELIVER, subject=delivery, delivery_id=delivery.pk)
    work.run_once(row.pk)
    row.refresh_from_db()
    delivery.refresh_from_db()
    return row


# -- the channel -------------------------------------------------------------------------------


def test_the_webhook_gets_the_message_with_its_link(channel: Channel) -> None:
    delivery = a_post(title="a <b> & c", body="<!channel> For: mara")
    assert run(delivery).state == Work.State.DONE
    head, document = channel.got[0]
    assert head == b"POST /services/T0/S3CRET HTTP/1.1"
    assert document == {
        "text": "*a &lt;b&gt; &amp; c*\n&lt;!channel&gt; For: mara\n"
        "<https://ml.example.org/admin/x/|Open>"
    }
    assert delivery.sent_at is not None


def test_a_message_is_sent_once_however_often_its_work_runs(channel: Channel) -> None:
    delivery = a_post()
    run(delivery)
    run(delivery)
    assert len(channel.got) == 1


def test_a_message_whose_sender_died_in_the_middle_is_not_sent_again(channel: Channel) -> None:
    delivery = a_post(taken_at=timezone.now())
    assert run(delivery).state == Work.State.DONE
    assert channel.got == []


def test_a_webhook_that_cannot_now_is_asked_again_later_and_later_until_it_is_given_up(
    channel: Channel,
) -> None:
    channel.status = 503
    delivery = a_post()
    row = work.enqueue(news.DELIVER, delivery_id=delivery.pk)
    pauses = []
    for _ in range(len(WAITS) + 1):
        Work.objects.update(not_before=timezone.now())
        http.forget_breakers()  # as after the pause, which is longer than they stay open
        before = timezone.now()
        work.run_once(row.pk)
        row.refresh_from_db()
        pauses.append(round((row.not_before - before).total_seconds()))
    assert pauses[:-1] == list(WAITS)
    assert row.state == Work.State.FAILED
    assert len(channel.got) == len(WAITS) + 1


def test_a_webhook_that_comes_back_gets_the_message(channel: Channel) -> None:
    channel.status = 500
    delivery = a_post()
    row = run(delivery)
    assert (row.state, delivery.taken_at) == (Work.State.QUEUED, None)
    channel.status = 200
    Work.objects.update(not_before=timezone.now())
    work.run_once(row.pk)
    delivery.refresh_from_db()
    assert delivery.sent_at is not None


def test_a_webhook_that_says_no_is_not_asked_again(channel: Channel) -> None:
    channel.status = 404
    delivery = a_post()
    row = run(delivery)
    assert row.state == Work.State.FAILED
    assert len(channel.got) == 1
    assert "404" in delivery.error


def test_what_is_kept_of_a_failure_never_holds_the_webhooks_secret(channel: Channel) -> None:
    channel.close()
    delivery = a_post()
    row = run(delivery)
    assert row.state == Work.State.QUEUED
    kept = f"{delivery.error} {row.error} {row.problem} {row.args}"
    assert "S3CRET" not in kept
    channel._socket = socket.create_server(("127.0.0.1", 0))  # for the fixture to close


def test_a_webhook_inside_the_own_network_needs_the_operators_word(
    channel: Channel, settings: Any
) -> None:
    settings.OUTBOUND_ALLOW = frozenset()
    with pytest.raises(http.OutboundRefused):
        slack.post("a", "b", "/admin/")
    assert channel.got == []


# -- mails -------------------------------------------------------------------------------------


def test_a_mail_has_one_receiver_the_words_and_the_link(settings: Any) -> None:
    settings.PUBLIC_URL = "https://ml.example.org"
    delivery = a_mail(event_id=PURGED + 7)
    assert run(delivery).state == Work.State.DONE
    (message,) = mail.outbox
    assert message.to == ["mara@example.org"]
    assert (message.cc, message.bcc) == ([], [])
    assert message.subject == "wine 4 is ready"
    assert "Try it.\n\nhttps://ml.example.org/admin/x/\n" in message.body
    assert delivery.person is not None
    name = f"<notification-{PURGED + 7}-{delivery.person.pk}@ml.example.org>"
    assert message.extra_headers["Message-ID"] == name


def test_a_mail_is_sent_once_however_often_its_work_runs() -> None:
    delivery = a_mail()
    run(delivery)
    run(delivery)
    assert len(mail.outbox) == 1


def test_a_title_cannot_begin_a_header_of_its_own() -> None:
    delivery = a_mail(title="x\r\nBcc: all@example.org")
    row = run(delivery)
    assert row.state == Work.State.FAILED
    assert mail.outbox == []


@pytest.mark.parametrize("change", [{"is_active": False}, {"email": ""}])
def test_who_left_or_has_no_address_any_more_gets_no_mail(change: dict[str, Any]) -> None:
    person = make_user("mara")
    type(person).objects.filter(pk=person.pk).update(**change)
    run(a_mail(person=person))
    assert mail.outbox == []


def test_who_left_the_team_while_a_mail_waited_gets_it_no_more() -> None:
    team = make_team("blue")
    person = make_member(team, Role.CONTRIBUTOR, "mara")
    event = events.record("team.renamed", actor=SYSTEM, target=team, team_id=team.pk)
    run(a_mail(person=person, event_id=event.pk))
    assert len(mail.outbox) == 1
    teams.remove_member(Membership.objects.get(), actor=SYSTEM)
    other = events.record("team.renamed", actor=SYSTEM, target=team, team_id=team.pk)
    run(a_mail(person=person, event_id=other.pk))
    assert len(mail.outbox) == 1


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (smtplib.SMTPServerDisconnected("gone"), True),
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (smtplib.SMTPDataError(451, b"later"), True),
        (smtplib.SMTPRecipientsRefused({"a": (450, b"busy")}), True),
        (smtplib.SMTPRecipientsRefused({"a": (550, b"unknown")}), False),
        (smtplib.SMTPAuthenticationError(535, b"wrong"), False),
        (smtplib.SMTPSenderRefused(553, b"no", "me"), False),
    ],
)
def test_a_mail_is_tried_again_only_when_the_server_may_take_it_later(
    error: Exception, retryable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("django.core.mail.backends.locmem.EmailBackend.send_messages", refuse)
    delivery = a_mail()
    row = run(delivery)
    assert row.state == (Work.State.QUEUED if retryable else Work.State.FAILED)
    assert (delivery.taken_at is None) is retryable
    assert delivery.error


def test_a_real_mail_server_that_is_away_is_a_failure_that_may_pass(settings: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", port
    with pytest.raises(mailer.MailServerAway):
        mailer.send("a@example.org", name="1", title="t", body="b", url="/admin/")


def test_the_database_refuses_a_second_mail_for_one_person_and_event() -> None:
    first = a_mail()
    with pytest.raises(IntegrityError), transaction.atomic():
        a_mail(person=first.person)


def test_the_database_refuses_a_second_post_of_one_event() -> None:
    a_post()
    with pytest.raises(IntegrityError), transaction.atomic():
        a_post()
