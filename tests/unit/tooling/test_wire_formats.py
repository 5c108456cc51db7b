"""Nothing read back from a queue, a cache or a session can be a program; forms have ends."""

from mlplatform.settings import base


def test_tasks_travel_as_json_only() -> None:
    assert base.CELERY_TASK_SERIALIZER == "json"
    assert base.CELERY_ACCEPT_CONTENT == ["json"]
    assert base.CELERY_TASK_IGNORE_RESULT


def test_sessions_are_json_in_rows_that_can_be_ended() -> None:
    assert base.SESSION_SERIALIZER.endswith("JSONSerializer")
    assert base.SESSION_ENGINE == "django.contrib.sessions.backends.db"


def test_forms_have_bounds() -> None:
    assert base.DATA_UPLOAD_MAX_MEMORY_SIZE == 16 * 2**20
    assert base.DATA_UPLOAD_MAX_NUMBER_FIELDS == 1000
    assert base.DATA_UPLOAD_MAX_NUMBER_FILES == 10
