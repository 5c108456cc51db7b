"""Pages of accounts that are no screens of a table."""
