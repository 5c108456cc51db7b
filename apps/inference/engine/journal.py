"""What is kept of a prediction, and the socket through which it is kept."""

from dataclasses import dataclass
from typing import Any, Protocol

from apps.registry.snapshot import FullSpool


@dataclass(frozen=True, slots=True)
class PredictionRecord:
    """One call that reached a version: answered, or failed on the way.

    Attributes:
        id: UUIDv7 as 36 characters; its millisecond is ``ts_ms``.
        ts_ms: Unix milliseconds at which the call was accepted.
        arm: Role of the arm that answered, or ``try``.
        status: ``ok``, or the stable code of the error.
        inputs: JSON values as recorded (whole, digest, or None), after redaction.
        outputs: The same for the answer; None when there was none.
        error: Message of the error, for people of the team; None when ok.
        address: Where the call came from, and ``agent`` by what program: they tell where a key was
            last used and do not stay with the prediction. None also where addresses are not kept.

    The journal adds ``seq`` (number in its writer's life, from 1, without gaps) and ``writer``.
    """

    id: str
    ts_ms: int
    model: str
    environment: str
    team_id: int
    version: int
    release: int | None
    arm: str
    variant: str | None
    experiment: str | None
    unit: str | None
    key_id: str | None
    user_id: int | None
    source: str
    status: str
    rows: int
    cached: bool
    total_ms: float
    queue_ms: float
    inference_ms: float
    inputs: Any
    outputs: Any
    error: str | None
    request_id: str
    client_id: str | None
    address: str | None = None
    agent: str | None = None


class Journal(Protocol):
    """Keeps records. When ``note`` returns, the record survives the death of this process."""

    def note(self, record: PredictionRecord, *, policy: FullSpool) -> None:
        """Keep one record.

        Args:
            record: What to keep.
            policy: What to do when there is no room: refuse, or count the loss and go on.

        Raises:
            SpoolFull: There is no room and the policy is ``required``.
        """
        ...
