"""The table is what Django believes it to be, on every database."""

import pytest
from django.db import connection

from apps.inference.engine.journal import PredictionRecord
from apps.inference.journal_db.rows import Row, Whence
from apps.inference.models import Prediction
from tests.factories.inference import prediction

pytestmark = pytest.mark.django_db


def test_the_columns_are_those_of_the_record_without_where_the_call_came_from() -> None:
    columns = {one.column for one in Prediction._meta.concrete_fields}
    recorded = set(PredictionRecord.__slots__) - {"ts_ms"} - set(Whence._fields)
    assert columns == recorded | {"ts", "seq", "writer"}
    assert columns == set(Row._fields)
    assert not columns & {"address", "agent"}


@pytest.mark.skipif(connection.vendor != "postgresql", reason="Django makes the table there")
def test_the_partitioned_table_has_the_columns_that_django_believes_in() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute "
            "WHERE attrelid = 'inference_prediction'::regclass AND attnum > 0"
        )
        there = {name: (kind, required) for name, kind, required in cursor.fetchall()}
    believed = {
        one.column: (
            str(one.db_type(connection)).replace("varchar", "character varying"),
            not one.null,
        )
        for one in Prediction._meta.concrete_fields
    }
    assert there == believed


def test_the_indexes_have_the_names_that_django_believes_in() -> None:
    with connection.cursor() as cursor:
        there = connection.introspection.get_constraints(cursor, Prediction._meta.db_table)
    for index in Prediction._meta.indexes:
        assert there[index.name]["columns"] == list(index.fields), index.name


def test_an_id_may_stand_there_once() -> None:
    one = prediction()
    with pytest.raises(Exception, match=r"(?i)unique"):
        Prediction.objects.create(**{name: getattr(one, name) for name in Row._fields})
