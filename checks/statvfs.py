"""What Host.size asks in a child; alone in a module, so that the child imports little and answers soon."""

import os


def file_system_size(mount: str) -> dict[str, int | bool]:
    """statvfs(3) of a mount, as checks.host.FileSystemSize has it. Raises OSError."""
    found = os.statvfs(mount)
    return {
        "total": found.f_blocks * found.f_frsize,
        "available": found.f_bavail * found.f_frsize,
        "inodes": found.f_files,
        "inodes_available": found.f_favail,
        "read_only": bool(found.f_flag & os.ST_RDONLY),
    }
