"""How many queries each page of the admin makes, pinned in ``query_counts.json``.

A change shows up in review as a number. ``make query-counts`` writes the file anew. That a page
makes no query per row is a rule of its own, and not a matter of the file.
"""

import json
import os
from pathlib import Path

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from benchmarks.admin_pages import pages_of
from benchmarks.estate import Estate, Size, fill

PINNED = Path(__file__).with_name("query_counts.json")
SMALL = Size(teams=3, people=6, models=6, versions_per_model=3, keys=6, predictions=300)
LARGE = Size(teams=6, people=30, models=40, versions_per_model=6, keys=40, predictions=900)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(600)]


def counts(estate: Estate) -> dict[str, int]:
    """Return the queries of each page, as the operator sees it."""
    client = Client()
    client.force_login(estate.admin)
    found = {}
    for name, path in pages_of(estate):
        ContentType.objects.clear_cache()
        client.get(path)  # what a process asks once and keeps is not the page's
        with CaptureQueriesContext(connection) as captured:
            reply = client.get(path)
        assert reply.status_code == 200, f"{name}: {path} answered {reply.status_code}"
        found[name] = len(captured)
    return found


def test_each_page_makes_the_queries_that_are_pinned() -> None:
    found = counts(fill(SMALL))
    if os.environ.get("MLP_WRITE_QUERY_COUNTS"):
        PINNED.write_text(json.dumps(found, indent=2) + "\n")
    assert found == json.loads(PINNED.read_text()), "`make query-counts` writes the file anew"


def test_no_page_makes_a_query_per_row() -> None:
    more = {
        name: (few, many)
        for (name, few), many in zip(
            json.loads(PINNED.read_text()).items(), counts(fill(LARGE)).values(), strict=True
        )
        if many > few + 2  # a list that is longer than a page asks for its end
    }
    assert more == {}
