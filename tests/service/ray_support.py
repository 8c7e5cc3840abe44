"""A real Ray cluster whose nodes are all this machine, for tests and benchmarks."""

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import psutil

_SMALL = {"object_store_memory": 80 << 20, "include_dashboard": False}


class RayCluster:
    """A head without room for jobs, and nodes with one CPU each unless it is said otherwise."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Ray's own imports
            from ray.cluster_utils import Cluster
        self._cluster = Cluster()
        self.add_head()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add_head(self, port: int | None = None) -> None:
        extra = {} if port is None else {"gcs_server_port": port}
        self._cluster.add_node(num_cpus=0, **_SMALL, **extra)

    def add(self, num_cpus: int = 1, num_gpus: int = 0) -> Any:
        """A further node; its GPUs are only counted."""
        return self._cluster.add_node(num_cpus=num_cpus, num_gpus=num_gpus, **_SMALL)

    def remove(self, node: Any) -> None:
        self._cluster.remove_node(node)

    def node_of(self, process: psutil.Process) -> Any:
        """The node whose raylet is an ancestor of this process."""
        ancestors = {parent.pid for parent in process.parents()}
        return next(n for n in self._cluster.worker_nodes if self.raylet(n).pid in ancestors)

    def raylet(self, node: Any) -> psutil.Process:
        (raylet,) = node.all_processes["raylet"]
        return psutil.Process(raylet.process.pid)

    def cut_off(self, node: Any) -> None:
        """Everything that runs on a node is killed at once, as when its power fails."""
        raylet = self.raylet(node)
        for process in [raylet, *raylet.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._cluster.remove_node(node, allow_graceful=False)

    def replace(self, nodes: int) -> None:
        """All is killed, and a new head, which knows nothing, takes the same address."""
        port = int(self.address.rpartition(":")[2])
        for node in [self._cluster.head_node, *self._cluster.worker_nodes]:
            self._cluster.remove_node(node, allow_graceful=False)
        self.add_head(port)
        for _ in range(nodes):
            self.add()

    def shutdown(self) -> None:
        self._cluster.shutdown()


@contextlib.contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """A head; its address is in `RAY_ADDRESS` meanwhile."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a socket's path must be short
    names = {"RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": ""}
    before = {name: os.environ.get(name) for name in names}
    os.environ |= names
    del os.environ["RAY_ADDRESS"]
    cluster = None
    try:
        cluster = RayCluster()
        os.environ["RAY_ADDRESS"] = cluster.address
        yield cluster
    finally:
        if cluster is not None:
            cluster.shutdown()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)
