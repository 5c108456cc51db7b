"""The filesystem broker, made safe for several processes.

Kombu's own writes a message into the file that a reader already sees, and the table of queues into
the file that others are reading. A reader that comes between opening and writing finds an empty
file, and its worker ends. Here every file is written whole under another name and then renamed,
and a message that cannot be read is dropped with a line in the log: what it asked for is a row of
``core.Work`` or the next tick.
"""

import fcntl
import logging
import time
from pathlib import Path
from queue import Empty
from typing import Any
from uuid import uuid4

from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps, loads

LOG = logging.getLogger(__name__)
MESSAGE = ".msg"


class Channel(filesystem.Channel):
    """Writes and claims files by renaming them."""

    # The stubs of kombu do not agree with each other on the names here.
    def _put(self, queue: str, message: Any, **_: Any) -> None:  # type: ignore[override]
        name = f"{time.monotonic_ns() // 1_000_000}_{uuid4()}.{queue}{MESSAGE}"
        _write_whole(Path(self.data_folder_out) / name, dumps(message))

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        folder = Path(self.data_folder_in)
        wanted = f"{queue}{MESSAGE}"
        for file in sorted(folder.iterdir()):
            if file.name.partition(".")[2] != wanted:
                continue
            # Renaming claims: of two readers one succeeds.
            claimed = file.with_name(f"{file.name}.{uuid4()}.taken")
            try:
                file.rename(claimed)
            except FileNotFoundError:
                continue
            text = claimed.read_text(encoding="utf-8", errors="replace")
            claimed.unlink()
            try:
                return loads(text)
            except ValueError:
                LOG.warning("a message of the queue %s could not be read and was dropped", queue)
        raise Empty

    def _queue_bind(
        self, exchange: str, routing_key: str | None, pattern: str | None, queue: str
    ) -> None:
        # Refuses a name that would leave the folder.
        file = self._exchange_file(exchange)  # type: ignore[attr-defined]  # not in the stubs
        bound = filesystem.exchange_queue_t(routing_key or "", pattern or "", queue or "")
        self.control_folder.mkdir(exist_ok=True, parents=True)
        with (self.control_folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            table = self.get_table(exchange)
            if bound not in table:
                _write_whole(file, dumps([bound, *table]))


class Transport(filesystem.Transport):
    """Kombu's filesystem transport with the channel above."""

    Channel = Channel


def _write_whole(file: Path, text: str) -> None:
    draft = file.with_name(f"{file.name}.{uuid4()}.draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(file)


def register() -> None:
    """Let ``filesystem://`` mean the transport above."""
    TRANSPORT_ALIASES["filesystem"] = f"{__name__}:Transport"
