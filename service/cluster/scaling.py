"""How many engines a pool has: by how long images wait, not by how many there are."""

from typing import Any

from ray.serve.config import AutoscalingContext

from service.cluster.replica import QUEUE_AGE


class ByQueueAge:
    """One more while the oldest image waits longer than `most_s`; one fewer while none waits and
    the rest would be busy for less than half of their time.

    A replica that begins has nothing to do before Ray sends it something, so the oldest wait of
    all of them counts. Ray adds its own delays for going up and down.
    """

    def __init__(self, most_s: float, at_once: int) -> None:
        self._most_s = most_s
        self._at_once = at_once

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Ray's form: the number, and nothing to remember."""
        now = context.current_num_replicas
        ages = (context.aggregated_metrics or {}).get(QUEUE_AGE, {})
        oldest = max(ages.values(), default=0.0)
        if oldest > self._most_s:
            return now + 1, {}
        under_way = float(context.total_num_requests or 0.0)
        if now > 1 and oldest == 0.0 and under_way < 0.5 * self._at_once * (now - 1):
            return now - 1, {}
        return now, {}
