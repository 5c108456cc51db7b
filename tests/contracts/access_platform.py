"""Who may call what belongs to no app. The columns are explained in ``access``."""

from tests.contracts.access import Row

# fmt: off
ROWS = [
    #                              nobody stranger viewer contributor maintainer admin key bare_key
    Row("GET", "api/schema",      "401 200 200 200 200 200 200 200", scope="predict"),
    Row("GET", "metrics",         "401 403 403 403 403 200 200 403", scope="metrics:read",
        key_owner="admin"),
    Row("GET", "api/v2(?:/.*)?$", "404 404 404 404 404 404 404 404", path="/api/v2/x"),
]
# fmt: on
