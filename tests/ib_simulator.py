"""A simulated InfiniBand fabric (ibsim with a real subnet manager): 2 spines, 2 leaves, 8 hosts; faults by its console.

The real tools of infiniband-diags talk to it: `tools` is a directory to put first on PATH, in which each of them is
bound to the simulator and to the host it is to run on.
"""

import itertools
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NUMBERS = itertools.count()  # fabrics of one run have sockets of their own
PRELOAD = "/usr/lib/x86_64-linux-gnu/umad2sim/libumad2sim.so"
OPENSM = ("OSM_TMP_DIR", "OSM_CACHE_DIR")  # where the subnet manager keeps its files
TOOLS = ("iblinkinfo", "ibqueryerrors", "ibstat", "perfquery")
_SLOW = frozenset((("leaf1", 18), ("spine1", 2)))  # a link that trained one lane of four


def topology(slow: bool) -> str:
    """The fabric in ibsim's format (that of ibnetdiscover)."""
    links: dict[str, dict[int, tuple[str, int]]] = {}

    def link(near: str, port: int, far: str, other: int) -> None:
        links.setdefault(near, {})[port] = (far, other)
        links.setdefault(far, {})[other] = (near, port)

    for leaf in (1, 2):
        for spine in (1, 2):
            for cable in (1, 2):
                link(f"leaf{leaf}", 16 + 2 * (spine - 1) + cable, f"spine{spine}", 2 * (leaf - 1) + cable)
        for slot in range(1, 5):
            link(f"leaf{leaf}", slot, f"node{4 * (leaf - 1) + slot}", 1)
    lines = []
    for number, name in enumerate(("leaf1", "leaf2", "spine1", "spine2")):
        lines += [
            f"switchguid=0x{0xB8599F0300A00000 + 0x100 * number:016x}",
            f'Switch 40 "{name}" # "{name}" lid 0 lmc 0',
        ]
        lines += [_row(name, port, far, slow) for port, far in sorted(links[name].items())] + [""]
    for number in range(1, 9):
        name = f"node{number}"
        lines += [f"caguid=0x{0xB8599F0300B00000 + 0x10 * number:016x}", f'Hca 1 "{name}" # "{name} mlx5_0"']
        lines += [_row(name, port, far, slow) for port, far in sorted(links[name].items())] + [""]
    return "\n".join(lines)


def _row(name: str, port: int, far: tuple[str, int], slow: bool) -> str:
    speed = "1xHDR" if slow and frozenset(((name, port), far)) == _SLOW else "4xHDR"
    return f'[{port}]\t"{far[0]}"[{far[1]}] # "{far[0]}" lid 0 {speed}'


class Fabric:
    """The running simulator. tools: see above."""

    def __init__(self, directory: Path, console: int) -> None:
        self.directory = directory
        self.tools = directory / "tools"
        self._console = console
        self._socket_name = f"muster{os.getpid()}.{next(_NUMBERS)}"

    def command(self, text: str) -> None:
        """Say something on the simulator's console, such as `Unlink "node5"`."""
        os.write(self._console, f"{text}\n".encode())

    def environment(self, host: str = "node1") -> dict[str, str]:
        """What a program needs so that the tools it starts see the fabric from `host`."""
        return os.environ | {"PATH": f"{self.tools}:{os.environ['PATH']}", "SIM_HOST": host, **self._socket()}

    def ask(self, *command: str, host: str = "node1") -> str:
        """What one of the tools says on that host."""
        done = subprocess.run(
            command,
            env=self.environment(host),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return done.stdout

    def _socket(self) -> dict[str, str]:
        return {"IBSIM_SOCKNAME": self._socket_name}

    def until(self, holds: Callable[[str], bool], *command: str, host: str = "node1") -> str:
        """Ask until the answer is as it should be; the last answer. Raises TimeoutError after 20 s."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if holds(answer := self.ask(*command, host=host)):
                return answer
            time.sleep(0.1)
        raise TimeoutError(f"{command} on {host} did not say what it should: {answer}")


@contextmanager
def fabric(directory: Path, slow: bool = False) -> Iterator[Fabric]:
    """A fabric with its subnet manager, up until the block ends."""
    (directory / "net").write_text(topology(slow))
    os.mkfifo(directory / "console")
    console = os.open(directory / "console", os.O_RDWR)
    found = Fabric(directory, console)
    _bind_tools(found.tools, directory)
    manager = None
    with (directory / "ibsim.log").open("w") as log, (directory / "opensm.out").open("w") as out:
        simulator = subprocess.Popen(
            ["ibsim", "-s", "net"], stdin=console, stdout=log, stderr=log, cwd=directory, env=found.environment()
        )
        try:
            time.sleep(0.2)  # its socket; the manager gives up at once without
            manager = subprocess.Popen(
                ["opensm", "-f", str(directory / "opensm.log"), "-g", "0xb8599f0300b00011", "-s", "2"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=directory,
                env=found.environment() | {"LD_PRELOAD": PRELOAD} | dict.fromkeys(OPENSM, str(directory)),
            )  # fmt: skip
            found.until(lambda text: "State: Active" in text, "ibstat", host="node8")
            yield found
        finally:
            # The manager first: it does not end by SIGTERM once the simulator is gone.
            for process in (manager, simulator):
                if process:
                    process.terminate()
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(5)
                    process.kill()
                    process.wait()
            os.close(console)


def _bind_tools(tools: Path, directory: Path) -> None:
    tools.mkdir()
    for name in TOOLS:
        path = tools / name
        # Clients leave ./sys-PID behind: let it be there.
        path.write_text(f'#!/bin/sh\ncd {directory} && LD_PRELOAD={PRELOAD} exec /usr/sbin/{name} "$@"\n')
        path.chmod(0o755)
