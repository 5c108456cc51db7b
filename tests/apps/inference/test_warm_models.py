"""The command that loads what a serving process needs, before there is one."""

import pytest
from django.core.management import CommandError, call_command

from tests.factories.serving import ServingNode, answering, primary


def test_every_required_model_is_loaded_and_counted(
    node: ServingNode, capsys: pytest.CaptureFixture[str]
) -> None:
    node.wine(required=True)
    node.version(2, model="iris", shift=2.0)
    node.endpoint(answering(primary(2)), model="iris")
    call_command("warm_models")
    assert "1 of 1 required models are warm" in capsys.readouterr().out


def test_a_model_that_does_not_load_is_named_and_fails_the_command(
    node: ServingNode, capsys: pytest.CaptureFixture[str]
) -> None:
    body = node.version(1, data=b"no model")
    node.endpoint(answering(primary(1)), required=True)
    assert body
    with pytest.raises(CommandError, match="1 required"):
        call_command("warm_models", seconds=5)
    assert "wine 1" in capsys.readouterr().err


def test_a_node_without_a_snapshot_says_so(node: ServingNode) -> None:
    (node.node.folder / "snapshot.jsonl").unlink()
    with pytest.raises(CommandError, match="agent"):
        call_command("warm_models")
