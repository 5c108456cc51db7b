"""What the documents promise of the shipped settings, and no test of an app can see.

The suite itself runs with a quick hash and an open policy; these look at the settings that ship.
"""

import re
from pathlib import Path

import pytest
from django.utils.module_loading import import_string

from apps.accounts.policies import TRIAL
from apps.accounts.services.plans import FIRST_PLANS
from apps.core.headers import headers_for
from mlplatform.settings import base

ROOT = Path(__file__).resolve().parents[3]


def test_passwords_are_hashed_by_bcrypt_with_12_rounds() -> None:
    hasher = import_string(base.PASSWORD_HASHERS[0])()
    assert (hasher.algorithm, hasher.rounds) == ("bcrypt_sha256", 12)


def test_passwords_of_djangos_own_hash_are_still_read() -> None:
    algorithms = [import_string(name)().algorithm for name in base.PASSWORD_HASHERS]
    assert "pbkdf2_sha256" in algorithms


def test_a_token_lives_half_an_hour_and_a_refresh_token_a_week() -> None:
    assert (base.JWT_ACCESS_SECONDS, base.JWT_REFRESH_SECONDS) == (30 * 60, 7 * 24 * 3600)


def test_production_waits_for_a_second_person_and_serves_nothing_native_unless_told() -> None:
    assert base.REQUIRE_APPROVAL
    assert not base.NATIVE_FORMATS


def test_a_call_has_100_rows_and_10_megabytes_and_a_file_5_gigabytes() -> None:
    assert (base.MAX_ROWS, base.MAX_PREDICT_BYTES) == (100, 10 * 2**20)
    assert base.MAX_IMAGE_PREDICT_BYTES == 14 * 2**20
    assert base.MAX_ARTIFACT_BYTES == 5 * 2**30


def test_a_trial_is_100_requests_and_10_predictions_a_minute() -> None:
    trial = next(one for one in FIRST_PLANS if one.name == TRIAL)
    assert (trial.requests_per_minute, trial.rows_per_minute) == (100, 10)


def test_predictions_are_kept_for_90_days() -> None:
    assert base.PREDICTION_RETENTION_DAYS == 90


def test_the_admins_exceptions_are_the_only_ones_in_the_policy() -> None:
    admin = headers_for("/admin/")["Content-Security-Policy"].split("; ")
    assert "script-src 'self' 'unsafe-eval'" in admin
    assert "style-src 'self' 'unsafe-inline'" in admin
    page = headers_for("/register")["Content-Security-Policy"].split("; ")
    assert "script-src 'self'" in page
    assert "style-src 'self'" in page
    assert not [one for one in (*admin, *page) if "*" in one or "http" in one]


@pytest.mark.parametrize(
    ("page", "rows"), [("soc2.md", 15), ("threat-model.md", 10)], ids=["controls", "OWASP"]
)
def test_every_control_has_its_proof(page: str, rows: int) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.findall(r"^\| ((?:CC|A1|C1|API)[^|]*)\|[^|]*\|([^|]*)\|$", text, re.MULTILINE)
    assert len(found) >= rows
    bare = [name for name, proof in found if not re.search(r"`(tests/|make |manage\.py )", proof)]
    assert bare == []
