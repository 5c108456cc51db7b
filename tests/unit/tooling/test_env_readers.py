"""Readers of the environment: a wrong value stops the start, and a password is never repeated."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from mlplatform.settings import env


def test_without_a_mail_server_nothing_leaves() -> None:
    assert env.email("X", "") == {"EMAIL_BACKEND": "django.core.mail.backends.dummy.EmailBackend"}


def test_a_mail_servers_url_becomes_djangos_settings() -> None:
    read = env.email("X", "smtp+tls://me:p%40ss@mail.example:587")
    assert read["EMAIL_HOST"] == "mail.example"
    assert (read["EMAIL_HOST_USER"], read["EMAIL_HOST_PASSWORD"]) == ("me", "p@ss")
    assert read["EMAIL_USE_TLS"] is True


@pytest.mark.parametrize("url", ["foo://me:S3CRET@host", "smtp://me:S3CRET@host:x"])
def test_a_wrong_url_is_refused_by_its_name_and_without_its_password(url: str) -> None:
    with pytest.raises(ImproperlyConfigured) as refused:
        env.email("MLP_EMAIL_URL", url)
    assert "MLP_EMAIL_URL" in str(refused.value)
    assert "S3CRET" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("url", ["postgres://u:pa/ssw0rd@h:5432/n", "postgres://u:pass@h:xx/n"])
def test_a_wrong_address_of_the_database_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL") as refused:
        env.database(url)
    assert "pa" not in str(refused.value).replace("password", "")
    assert refused.value.__suppress_context__


def test_whole_numbers_are_read_by_comma(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X_PORTS", "443, 8443")
    assert env.integers("X_PORTS") == (443, 8443)
    monkeypatch.setenv("X_PORTS", "https")
    with pytest.raises(ImproperlyConfigured, match="X_PORTS"):
        env.integers("X_PORTS")
