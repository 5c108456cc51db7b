"""Counters that all nodes share, in Redis: one round trip for all counters of a call."""

import time
from collections.abc import Callable, Sequence

from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

from apps.accounts.limits import Ask, Taken

PREFIX = "mlp:limits:"
NODES = f"{PREFIX}nodes"
NODE_SECONDS = 30
ANNOUNCE_SECONDS = 5.0
# Kept beyond the window's end, for nodes whose clocks are a little behind.
SPARE_SECONDS = 5

# KEYS: the counters, then the set of nodes. ARGV: name of this node (empty: do not count nodes),
# Unix second, NODE_SECONDS; then six numbers for each counter. What a counter holds that is no
# count (another program's value, damage) is begun anew. The rule of what fits is limits.given.
SCRIPT = """
local FIELDS, n, last = 7, #KEYS - 1, #KEYS
local asks, fits = {}, {[0] = true, [1] = true}
for i = 1, n do
  local a = 3 + (i - 1) * FIELDS
  local one = {}
  for j = 1, FIELDS do one[j] = tonumber(ARGV[a + j]) end
  local raw = redis.pcall('GET', KEYS[i])
  local stored = 0
  if type(raw) == 'string' then
    stored = tonumber(raw) or 0
    if stored ~= stored or stored < 0 or stored > 9007199254740992 then stored = 0 end
  elseif type(raw) == 'table' then
    redis.call('DEL', KEYS[i])
  end
  one.count = math.max(math.floor(stored), one[5]) + one[6]
  one.stored = stored
  if one[2] > 0 and one.count + one[2] > one[1] then fits[one[4]] = false end
  asks[i] = one
end
if not fits[0] then fits[1] = false end
local out = {}
for i = 1, n do
  local one = asks[i]
  local give = 0
  if one[2] > 0 and fits[one[4]] then
    give = math.min(one[3], math.max(one[2], math.floor((one[1] - one.count) / 8)))
  end
  local now = one.count + give
  if now ~= one.stored then
    redis.call('SET', KEYS[i], string.format('%.0f', now), 'EX', one[7])
  end
  out[2 * i - 1] = now
  out[2 * i] = give
end
if ARGV[1] ~= '' then
  local said = redis.pcall('ZADD', KEYS[last], ARGV[2], ARGV[1])
  if type(said) == 'table' then
    redis.call('DEL', KEYS[last])
    redis.call('ZADD', KEYS[last], ARGV[2], ARGV[1])
  end
  redis.call('ZREMRANGEBYSCORE', KEYS[last], '-inf', tonumber(ARGV[2]) - tonumber(ARGV[3]))
  redis.call('EXPIRE', KEYS[last], 2 * tonumber(ARGV[3]))
  out[2 * n + 1] = redis.call('ZCARD', KEYS[last])
end
return out
"""


class CountersAway(Exception):
    """The counters do not answer, or not as they should."""


class RedisCounters:
    """The counters of one Redis (not of a cluster: a call's counters lie in several slots)."""

    def __init__(
        self,
        url: str,
        *,
        node: str,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect with the first call.

        Args:
            url: ``redis://`` or ``rediss://``.
            node: Name of this node, by which nodes are counted; empty to stay out of the count.
            timeout_seconds: How long any step may take.
            clock: Monotonic seconds.
        """
        self._node = node
        self._clock = clock
        self._announced: float | None = None
        self._client = Redis(
            connection_pool=ConnectionPool.from_url(
                url,
                socket_timeout=timeout_seconds,
                socket_connect_timeout=timeout_seconds,
                # A second try would double the wait; whoever asks has another way.
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                driver_info=None,
            )
        )
        self._sha = self._client.register_script(SCRIPT).sha
        self.nodes = 0

    def take(self, asks: Sequence[Ask], now: float) -> list[Taken]:
        """Count what fits.

        Raises:
            CountersAway: Nothing is known; the uses may have been counted or not.
        """
        announces = self._is_due()
        keys = [f"{PREFIX}{one.counter}:{one.window}" for one in asks]
        words: list[str | int | float] = [self._node if announces else "", now, NODE_SECONDS]
        for one in asks:
            seconds = max(1, int(one.ends - now)) + SPARE_SECONDS
            words += [one.most, one.need, one.want, int(one.stage), one.known, one.owed, seconds]
        try:
            said = self._said([*keys, NODES], words)
            return self._read(said, asks, announces=announces)
        except Exception as error:  # no fault of a counter or its library fails a prediction
            raise CountersAway(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _said(self, keys: list[str], words: list[str | int | float]) -> object:
        try:
            return self._client.evalsha(self._sha, len(keys), *keys, *words)
        except NoScriptError:  # a new Redis, or one that was restarted
            return self._client.eval(SCRIPT, len(keys), *keys, *words)

    def _read(self, said: object, asks: Sequence[Ask], *, announces: bool) -> list[Taken]:
        if not isinstance(said, list) or len(said) != 2 * len(asks) + announces:
            raise ValueError("the answer has another form")
        numbers = [int(one) for one in said]
        if announces:
            self.nodes, self._announced = numbers[-1], self._clock()
        return [
            Taken(numbers[2 * index], numbers[2 * index + 1], one.most)
            for index, one in enumerate(asks)
        ]

    def _is_due(self) -> bool:
        if not self._node:
            return False
        return self._announced is None or self._clock() - self._announced >= ANNOUNCE_SECONDS
