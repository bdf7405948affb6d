"""What waits, for Prometheus."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.connectors.feeder import Feeder
from service.connectors.folder import Folder
from service.connectors.outbox import Outbox
from service.connectors.receiver import Receiver


class ConnectMetrics(Collector):
    """Asked for when somebody asks."""

    def __init__(
        self,
        outbox: Outbox,
        feeder: Feeder | None,
        receivers: Sequence[Receiver] = (),
        folders: Sequence[Folder] = (),
    ) -> None:
        self._outbox = outbox
        self._feeder = feeder
        self._receivers = receivers
        self._folders = folders

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        waiting = GaugeMetricFamily(
            "kizu_connect_waiting_results", "Results that wait for a receiver.", labels=["receiver"]
        )
        received = CounterMetricFamily(
            "kizu_connect_received", "Results that a receiver has.", labels=["receiver"]
        )
        found = self._outbox.waiting()
        for one in self._receivers:
            waiting.add_metric([one.name], found[one.name])
            received.add_metric([one.name], one.received)
        images = GaugeMetricFamily(
            "kizu_connect_waiting_images", "Images that wait in a folder.", labels=["folder"]
        )
        for folder in self._folders:
            images.add_metric([folder.name], folder.images)
        answers = GaugeMetricFamily(
            "kizu_connect_service_answers", "Whether the service answers who asks it for results."
        )
        if self._feeder:
            answers.add_metric([], not self._feeder.away)
        return [waiting, received, images, answers]

    @contextmanager
    def served(self, host: str, port: int) -> Iterator[int]:
        """At an address, as /metrics; at which port. Raises OSError."""
        registry = CollectorRegistry()
        registry.register(self)
        server, thread = start_http_server(port, host, registry)
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
