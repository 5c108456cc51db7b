"""A serving node for the tests of doors, follower and agent."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.factories.serving import ServingNode, serving_node


@pytest.fixture
def node(tmp_path: Path, settings: Any) -> Iterator[ServingNode]:
    """A folder of its own from which this process serves."""
    with serving_node(tmp_path, settings) as made:
        yield made
