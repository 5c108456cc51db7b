"""Changes to the record: days made ahead, retention, and what one unit left behind erased."""
