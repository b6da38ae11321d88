"""A Ray cluster: found or started, and left again. Ray is an extra; nothing imports it before somebody asks for it."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import UserError

INSTALL = "Ray is not installed; install it with: pip install 'dreamfusion[batch]'"

VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a task without GPUs leaves CUDA's variables alone
    # What Ray waits for its own processes. Where runs take all cores, they start slowly.
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "600",
}


def import_ray() -> Any:
    """The module ``ray``. UserError where it is not installed."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise UserError(INSTALL) from None
    return ray


def check_address(where: str) -> Any:
    """The module ``ray``. UserError where it is not installed, or for an address that is none."""
    if where not in ("auto", "local") and not re.fullmatch(r"[^\s/:]+:\d{1,5}|\[[0-9a-fA-F:.]+\]:\d{1,5}", where):
        raise UserError(
            f"--ray {where} is not allowed; give 'auto', 'local' or HOST:PORT of the head (often port 6379), on a machine of its cluster"
        )
    return import_ray()


@contextmanager
def connected(where: str) -> Iterator[Any]:
    """The module ``ray``, connected to a cluster.

    ``where``: 'auto' is the cluster that this machine is part of, HOST:PORT the one of a head node (from a machine of the
    cluster), and 'local' one of this machine alone, which ends with the ``with`` statement. A program that is connected already
    stays so. UserError if there is no cluster, or if Ray does not start.
    """
    ray = check_address(where)
    if ray.is_initialized():
        yield ray
        return
    own: dict[str, Any] = {"include_dashboard": False} if where == "local" else {}
    try:
        ray.init(address=where, log_to_driver=False, logging_level="ERROR", **own)
    except ConnectionError:
        start = "start one with 'ray start --head', or use --ray local"
        raise UserError(f"there is no Ray cluster at {where!r}; {start}") from None
    except Exception as error:  # Ray raises plain ones where its processes do not start
        said = " ".join(str(error).split())
        raise UserError(f"Ray cannot be used at {where!r}: {said or type(error).__name__}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def simulated(nodes: int, cpus: int = 1) -> Iterator[Any]:
    """A cluster of several nodes on this machine, for tests and benchmarks: ``ray.cluster_utils.Cluster``, whose ``worker_nodes`` are
    all but the head. A node has ``cpus`` CPUs and processes of its own, so killing it is like losing a machine.

    UserError if Ray does not start.
    """
    import_ray()
    from ray.cluster_utils import Cluster

    try:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus, "include_dashboard": False})
    except Exception as error:  # a plain one, where the node's processes are not there within its time
        raise UserError(f"Ray does not start a node here; the machine may be too busy ({error})") from None
    try:
        for _ in range(nodes - 1):
            cluster.add_node(wait=False, num_cpus=cpus)
        cluster.wait_for_nodes(timeout=600)
        yield cluster
    finally:
        cluster.shutdown()


def free_ports(count: int) -> list[int]:
    """TCP ports of this machine that nobody uses now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
