"""Sums up the minutes that were counted before there were spans; going back leaves them unused.

Day by day, each in a transaction of its own: it may be ended at any moment and started again. Run
it while no agent of an older release ships, or what that one counts meanwhile is left out of spans.
"""

from datetime import datetime, timedelta, timezone

from django.db import connection, migrations, transaction

from apps.inference.engine.buckets import NOT_TRAFFIC, SPAN_SECONDS, SpanKey, Tally, rolled_up, span_start

OK = "ok"
DAY = timedelta(days=1)
BATCH = 500


def fill(apps, schema_editor):
    minutes = apps.get_model("inference", "PredictionMinute").objects
    first = minutes.order_by("minute").values_list("minute", flat=True).first()
    if first is None:
        return
    names = apps.get_model("registry", "RegisteredModel").objects.values_list("name", "team_id")
    teams = dict(names)
    day = span_start(first, SPAN_SECONDS[-1])
    while day <= datetime.now(timezone.utc):
        rows = minutes.filter(minute__gte=day, minute__lt=day + DAY).exclude(arm__in=NOT_TRAFFIC)
        with transaction.atomic():
            _keep_shippers_out()
            _fill_day(apps.get_model("inference", "PredictionSpan"), day, rows, teams)
        day += DAY


def _keep_shippers_out():
    """Until the commit: what is shipped between the look and the write would be lost in spans.

    SQLite's transactions have one writer anyhow.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute('LOCK TABLE "inference_predictionspan" IN SHARE ROW EXCLUSIVE MODE')


def _fill_day(span, day, rows, teams):
    finest = {}
    for row in rows.iterator(chunk_size=2000):
        if row.model not in teams:
            continue
        key = SpanKey(
            span_start(row.minute, SPAN_SECONDS[0]), SPAN_SECONDS[0], teams[row.model], row.model,
            row.environment, row.version, row.status,
        )
        histogram = {int(bucket): count for bucket, count in row.histogram.items()}
        one = Tally(row.count, row.rows, row.cache_hits, row.latency_us, {}, histogram)
        finest.setdefault(key, Tally()).absorb(one)
    made = [
        span(
            **key._asdict(),
            count=one.count,
            rows=one.rows,
            cache_hits=one.cache_hits,
            latency_us=one.latency_us,
            histogram={str(bucket): count for bucket, count in one.histogram.items()},
        )
        for key, one in sorted(rolled_up(finest).items())
    ]
    span.objects.filter(start__gte=day, start__lt=day + DAY).delete()
    span.objects.bulk_create(made, batch_size=BATCH)


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("inference", "0003_traffic_spans"), ("registry", "0001_registry_tables")]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
