"""Brings spooled records into the database: at least once over the wire, exactly once in the table.

``ship`` is all that others call. ``rows`` reads a record, ``tables`` writes many of them together
with their counts in one transaction, ``shipper`` walks the files and decides when one may go.
"""

from apps.inference.journal_db.shipper import LogUnavailable, Shipped, ship, write_manifest

__all__ = ["LogUnavailable", "Shipped", "ship", "write_manifest"]
