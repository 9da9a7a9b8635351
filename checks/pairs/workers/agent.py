"""The resident worker of one node: takes orders as JSON lines on its input, answers as JSON lines on its output.

It starts once per sweep, because starting (Python, torch, CUDA) costs more than measuring. Orders are handled side by
side, so that one that hangs does not keep the worker from answering another. Its input's end is its end: when the
coordinator goes, however it goes, the kernel closes the pipe and no worker stays behind.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

_answering = threading.Lock()


def answer(message: Mapping[str, Any]) -> None:
    """Write one line whole; an output that has gone means the coordinator has."""
    line = json.dumps(message) + "\n"
    with _answering:
        try:
            sys.stdout.write(line)
            sys.stdout.flush()
        except OSError:
            os._exit(1)


def run_command(order: Mapping[str, Any]) -> dict[str, Any]:
    """A program of this node, such as iperf3: exit code and output; or what kept it from running."""
    from checks.host import CommandError
    from checks.host import run_command as run

    try:
        done = run(order["command"], order["deadline"])
    except CommandError as error:
        return {"error": str(error)}
    return {"code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


def open_store(order: Mapping[str, Any]) -> dict[str, Any]:
    """Offer a meeting point for a pair; its port. The pair's `traffic` order finds it by `pair`."""
    from checks.pairs.workers import traffic

    return {"port": traffic.open_store(order["pair"], order["address"], order["deadline"])}


def measure_traffic(order: Mapping[str, Any]) -> dict[str, Any]:
    """Send and receive with the partner for a window each way."""
    from checks.pairs.workers import traffic

    return traffic.measure(order)


ORDERS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "command": run_command,
    "open": open_store,
    "traffic": measure_traffic,
}


def handle(order: Mapping[str, Any]) -> None:
    """Carry out one order; whatever goes wrong is its answer."""
    try:
        found = ORDERS[order["do"]](order)
    except Exception as error:  # noqa: BLE001 - the coordinator must hear of it whatever it is
        found = {"error": f"{type(error).__name__}: {error}"}
    answer({"id": order["id"], **found})


def main() -> None:
    """Serve orders until the input ends."""
    warm = os.environ.get("MUSTER_PAIRS_WARM", "")
    if warm == "torch":
        from checks.pairs.workers import traffic

        traffic.warm_up()
    answer({"id": -1, "pid": os.getpid()})
    for line in sys.stdin:
        threading.Thread(target=handle, args=(json.loads(line),), daemon=True).start()
    # Threads may hang in the network for minutes: nobody waits for them.
    os._exit(0)


if __name__ == "__main__":
    main()
