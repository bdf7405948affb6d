"""Three nodes of a Ray cluster on this machine, and the service on them.

    python -m tests.nodes FOLDER

says on which port it answers, and kills a node with an engine for each line that it is given. Each
node has a disk of its own in FOLDER; where bundles are shared, by KIZU_BUNDLES, there are two
fronts. In a process of its own: Ray reads its flags when it is imported, and warns of much that is
its own.
"""

import json
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.sleeping import Sleeping
from tests.benchmarks.subject import free_port

BATCH = 8
READY_S = 120
# What deploy/ray says to set on every node.
FLAGS = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1",
}


class Nodes:
    """A head, on which the front runs, and two nodes with room for one engine each; the second
    has room for another front."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shared = "KIZU_BUNDLES" in os.environ
        os.environ |= FLAGS | {
            "KIZU_ACCESS": "open",
            "RAY_USAGE_STATS_ENABLED": "0",
            # Ray ends a proxy that is not there after five; here three nodes start on a few cores.
            "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "50",
        }
        from ray.cluster_utils import Cluster

        self.port = free_port()
        self._cluster = Cluster(
            initialize_head=True,
            connect=True,
            head_node_args={
                "num_cpus": 4, "resources": {"front": 1}, "include_dashboard": False,
                "env_vars": self._disk("head"),
            },
        )  # fmt: skip
        self._workers = [self._add(), self._add(front=int(self._shared))]
        from ray import serve

        http = {"host": "127.0.0.1", "port": self.port}
        serve.start(proxy_location="HeadOnly", http_options=http)

    @contextmanager
    def serving(self, engines: int, *, sleep: Sleeping | None) -> Iterator[None]:
        """What `deploy` does, until the end of it."""
        from ray import serve

        self.deploy(engines, sleep=sleep)
        try:
            yield
        finally:
            serve.delete("kizu")

    def deploy(self, engines: int, *, sleep: Sleeping | None, own: str | None = None) -> None:
        """The fronts and so many engines, which sleep or run ONNX, and one of a recipe's `own`."""
        from ray import serve

        from service.cluster.application import build

        pools: list[dict[str, Any]] = [
            {
                "name": "engines", "min_replicas": engines, "max_replicas": engines,
                "actor": {"resources": {"engine": 1}, "num_cpus": 0},
            }
        ]  # fmt: skip
        if own:
            pools.append({"name": "own", "recipes": [own], "actor": {"num_cpus": 0}})
        fronts = {"fronts": 1 + self._shared, "front": {"resources": {"front": 1}}}
        arguments = fronts | {"pools": pools}
        engine: dict[str, Any] = {"open_engine": sleep, "limits": (1, BATCH)} if sleep else {}
        serve.run(build(arguments, **engine), name="kizu", route_prefix="/")
        _wait(self.port)

    def kill_one(self) -> None:
        """All processes of a node that runs an engine."""
        self._cluster.remove_node(self._workers.pop(0), allow_graceful=False)

    def replace(self) -> None:
        """Another one in its place."""
        self._workers.append(self._add())

    def close(self) -> None:
        """End them all, at once: Ray would wait for what went with a node."""
        import ray

        ray.shutdown()
        self._cluster.shutdown()

    def _add(self, front: int = 0) -> Any:
        disk = self._disk(f"worker-{len(self._cluster.worker_nodes)}")
        resources = {"engine": 1, "front": front}
        return self._cluster.add_node(num_cpus=1, resources=resources, env_vars=disk)

    def _disk(self, node: str) -> dict[str, str]:
        """Where a node finds what is its own."""
        store = self._folder / (node if self._shared else ".") / "store"
        return {"KIZU_DATA": str(self._folder / node / "data"), "KIZU_STORE": str(store)}


def _wait(port: int) -> None:
    until = time.monotonic() + READY_S
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)  # nobody tells
        else:
            return


def main() -> None:
    """Serve until the standard input ends."""
    nodes = Nodes(Path(sys.argv[1]))
    try:
        nodes.deploy(2, sleep=Sleeping(), own="box")
        print(json.dumps({"port": nodes.port}), flush=True)
        for _ in sys.stdin:
            nodes.kill_one()
            print(json.dumps({"killed": True}), flush=True)
    finally:
        nodes.close()


if __name__ == "__main__":
    main()
