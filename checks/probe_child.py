"""The other end of a Prober: calls what it is told, streams what that yields, and ends when its parent does."""

import importlib
import inspect
import signal
import socket
import sys

from checks.prober import receive, send


def serve(sock: socket.socket) -> None:
    """Answer requests until the parent is gone."""
    while True:
        try:
            function, args = receive(sock)
        except EOFError:
            return
        try:
            _answer(sock, function, args)
        except (BrokenPipeError, ConnectionResetError):
            return


def _answer(sock: socket.socket, function: str, args: tuple[object, ...]) -> None:
    try:
        module, name = function.split(":")
        result = getattr(importlib.import_module(module), name)(*args)
        if inspect.isgenerator(result):
            result = _drain(sock, result)
    except Exception as error:  # noqa: BLE001 - whatever a probe raises is the answer
        send(sock, ("failed", f"{type(error).__name__}: {error}"))
    else:
        send(sock, ("returned", result))


def _drain(sock: socket.socket, generator: object) -> object:
    iterator = iter(generator)  # type: ignore[call-overload]
    while True:
        try:
            value = next(iterator)
        except StopIteration as stop:
            return stop.value
        send(sock, ("yielded", value))


if __name__ == "__main__":
    # A Ctrl-C for the agent is not for its children: the agent ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(socket.socket(fileno=int(sys.argv[1])))
