"""Finds whose files fill a file system, by a walk that is bounded in time; runs in a killable child."""

import os
import time
from collections import deque

import msgspec


class Walk(msgspec.Struct, frozen=True, kw_only=True):
    """What a walk saw. owners, directories: name -> bytes on disk. whole: it saw everything there is.

    directories are those one and two levels below the mount point.
    """

    owners: dict[str, int]
    directories: dict[str, int]
    whole: bool


def walk(root: str, seconds: float) -> dict[str, object]:
    """Sum up what lies below `root` on the same file system, the upper levels first, for at most `seconds`.

    Directories that may not be read are left out, and the walk is then not whole.
    """
    end = time.monotonic() + seconds
    device = os.lstat(root).st_dev
    owners: dict[int, int] = {}
    directories: dict[str, int] = {}
    queue = deque([(root, "", 0)])
    linked: set[int] = set()
    whole = True
    while queue:
        path, top, depth = queue.popleft()
        if time.monotonic() > end:
            whole = False
            break
        try:
            entries = list(os.scandir(path))
        except OSError:
            whole = False
            continue
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if found.st_dev != device:
                continue
            if entry.is_dir(follow_symlinks=False):
                queue.append((entry.path, top if depth >= 2 else entry.path, depth + 1))
            elif found.st_nlink > 1 and found.st_ino in linked:
                continue  # another name of a file that was counted
            elif found.st_nlink > 1:
                linked.add(found.st_ino)
            size = found.st_blocks * 512
            owners[found.st_uid] = owners.get(found.st_uid, 0) + size
            if top:
                directories[top] = directories.get(top, 0) + size
    return {
        "owners": _largest({_user(uid): size for uid, size in owners.items()}),
        "directories": _largest(directories),
        "whole": whole,
    }


def _largest(sizes: dict[str, int], most: int = 10) -> dict[str, int]:
    kept = sorted(sizes.items(), key=lambda item: -item[1])[:most]
    return {os.fsencode(name).decode("utf-8", "backslashreplace"): size for name, size in kept}


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
