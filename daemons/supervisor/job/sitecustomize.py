"""Runs at the start of every Python process of a supervised job; does something only in a rank.

A rank writes down who it is, answers stack requests on a signal even while it holds the GIL, says what exception ended
it, and, once torch.distributed is up, opens torch's own worker server on a Unix socket, whose C++ thread answers while
Python hangs. Nothing in here may fail or slow a job: every error is swallowed and written down. Standard library only,
Python 3.8 or later; torch is touched only after the job itself has imported it.
"""

import functools
import importlib.machinery
import importlib.util
import json
import os
import sys
import threading
import time
import types  # noqa: F401 (in comments of types: annotations would need a later Python)

_HERE = os.path.dirname(os.path.abspath(__file__))
_RANKS = (
    "RANK",
    "OMPI_COMM_WORLD_RANK",
    "PMIX_RANK",
    "PMI_RANK",
    "MV2_COMM_WORLD_RANK",
    "HOROVOD_RANK",
    "SLURM_PROCID",
)
_kept = []  # type: list[object]  # what must live as long as the process


def _note(directory, name, content):  # type: (str, str, object) -> None
    """Write a small JSON file whole; a reader never sees half of one."""
    path = os.path.join(directory, name)
    with open(path + ".part", "w") as file:
        json.dump(content, file)
    os.replace(path + ".part", path)


def _rank():  # type: () -> int
    for name in _RANKS:
        text = os.environ.get(name, "")
        if text.isdigit():
            return int(text)
    return -1


def _claim(rank):  # type: (int) -> bool
    """Whether this process is the rank itself, not a child of it: children inherit the claim."""
    identity = "/".join(
        [str(rank)] + [os.environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")]
    )
    if os.environ.get("MUSTER_RANK_CLAIM") == identity:
        return False
    os.environ["MUSTER_RANK_CLAIM"] = identity
    return True


def _stacks_on_signal(directory):  # type: (str) -> int
    """All stacks go to a file on a real-time signal (asked for), and on SIGTERM (how launchers end a rank)."""
    import faulthandler
    import signal

    number = int(signal.SIGRTMAX) - 3
    pid = os.getpid()
    asked = open(os.path.join(directory, "stacks-%d.txt" % pid), "w")
    ended = open(os.path.join(directory, "last-%d.txt" % pid), "w")
    _kept.extend([asked, ended])
    faulthandler.register(number, file=asked, all_threads=True, chain=False)
    faulthandler.register(signal.SIGTERM, file=ended, all_threads=True, chain=True)
    # A data-loading worker that is ended after its work must not leave its stack in its rank's name.
    os.register_at_fork(after_in_child=lambda: faulthandler.unregister(signal.SIGTERM))
    return number


def _say_what_ended_it(directory, rank):  # type: (str, int) -> None
    before = sys.excepthook

    def hook(kind, value, trace):  # type: ignore[no-untyped-def]
        try:
            frames = []
            at = trace
            while at is not None:
                code = at.tb_frame.f_code
                frames.append([code.co_filename, at.tb_lineno, code.co_name])
                at = at.tb_next
            _note(
                directory,
                "end-%d.json" % os.getpid(),
                {
                    "rank": rank,
                    "pid": os.getpid(),
                    "time": time.time(),
                    "type": kind.__name__,
                    "message": str(value)[:4000],
                    "frames": frames[::-1][:200],
                },
            )
        except BaseException as error:  # noqa: BLE001
            _swallowed(directory, error)
        before(kind, value, trace)

    sys.excepthook = hook


def _say_who_exits(directory, rank):  # type: (str, int) -> None
    """A rank that ends itself with a code has a line of code where it does so; nothing else keeps it."""
    pid = os.getpid()

    def watched(leave, name):  # type: ignore[no-untyped-def]
        def wrapper(status=0):  # type: ignore[no-untyped-def]
            try:
                if status not in (0, None, False) and os.getpid() == pid:
                    _note_exit(directory, rank, name, status)
            except BaseException as error:  # noqa: BLE001
                _swallowed(directory, error)
            leave(status)

        return functools.wraps(leave)(wrapper)

    sys.exit = watched(sys.exit, "sys.exit")  # type: ignore[no-untyped-call]
    os._exit = watched(os._exit, "os._exit")  # type: ignore[no-untyped-call]


def _note_exit(directory, rank, name, status):  # type: (str, int, str, object) -> None
    frames = []  # type: list[list[object]]
    at = sys._getframe(2)  # type: types.FrameType | None
    while at is not None and len(frames) < 200:
        frames.append([at.f_code.co_filename, at.f_lineno, at.f_code.co_name])
        at = at.f_back
    end = {"rank": rank, "pid": os.getpid(), "time": time.time(), "type": "SystemExit", "frames": frames}
    end["message"] = "%s(%s)" % (name, str(status)[:200])
    _note(directory, "exit-%d.json" % os.getpid(), end)


def _swallowed(directory, error):  # type: (str, BaseException) -> None
    try:
        _note(directory, "error-%d.json" % os.getpid(), {"error": repr(error)})
    except Exception:  # noqa: BLE001
        pass


def _serve_when_torch_is_up(directory, note):  # type: (str, dict[str, object]) -> None
    """Wait, without importing anything, until the job has a process group; then open torch's worker server."""
    try:
        pause = 0.1
        while True:
            time.sleep(pause)
            pause = min(1.0, pause * 1.1)
            distributed = sys.modules.get("torch.distributed")
            ready = getattr(distributed, "is_initialized", None)
            if ready is not None and ready():
                break
        assert distributed is not None
        if "TORCH_WORKER_SERVER_SOCKET" in os.environ:
            note["socket"] = os.environ["TORCH_WORKER_SERVER_SOCKET"]
        else:
            from torch._C._distributed_c10d import _WorkerServer

            path = os.path.join(directory, "%d.sock" % os.getpid())
            _kept.append(_WorkerServer(path))
            note["socket"] = path
        note["rank"] = int(distributed.get_rank())
        note["world_size"] = int(distributed.get_world_size())
        _note(directory, "rank-%d.json" % os.getpid(), note)
    except BaseException as error:  # noqa: BLE001
        _swallowed(directory, error)


def _start():  # type: () -> None
    directory = os.environ.get("MUSTER_HOOK_DIR", "")
    rank = _rank()
    if not directory or rank < 0 or not _claim(rank):
        return
    try:
        note = {"rank": rank, "pid": os.getpid(), "python": sys.executable, "socket": ""}
        note["signal"] = _stacks_on_signal(directory)
        _say_what_ended_it(directory, rank)
        _say_who_exits(directory, rank)
        _note(directory, "rank-%d.json" % os.getpid(), note)
        threading.Thread(
            target=_serve_when_torch_is_up, args=(directory, note), name="muster-hook", daemon=True
        ).start()
    except BaseException as error:  # noqa: BLE001
        _swallowed(directory, error)


def _chain():  # type: () -> None
    """Run the sitecustomize that this one stands before, as Python would have."""
    path = [entry for entry in sys.path if os.path.abspath(entry or ".") != _HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", path)
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


_start()
_chain()
