"""What is mounted: /proc/1/mountinfo, which names the same file systems as every process sees them, and /etc/fstab."""

from collections.abc import Iterator
from dataclasses import dataclass

from checks.host import Host, Unreadable

# Kernel interfaces with files for handles: nothing of them can fill up, go read-only or hang on a disk.
# fmt: off
PSEUDO = frozenset(
    (
        "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs",
        "fuse.gvfsd-fuse", "fuse.lxcfs", "fuse.portal", "fusectl", "hugetlbfs", "mqueue", "nsfs", "proc", "pstore",
        "ramfs", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tracefs",
    )
)
# Images: full and read-only by nature.
IMAGES = frozenset(("squashfs", "iso9660", "erofs", "cramfs", "fuse.squashfuse", "fuse.snapfuse", "udf"))
NETWORK = frozenset(
    (
        "9p", "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.juicefs", "fuse.mfs", "fuse.s3fs", "fuse.sshfs",
        "fuse.weka", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "pvfs2", "smb3", "wekafs",
    )
)
# fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mounted file system. options are of this mount point, super_options of the file system itself."""

    point: str
    device: str  # major:minor
    kind: str
    source: str
    options: frozenset[str]
    super_options: frozenset[str]

    @property
    def component(self) -> str:
        """`mount/data` for /data, `mount/` for the root."""
        return f"mount{self.point}"

    @property
    def network(self) -> bool:
        return self.kind in NETWORK

    @property
    def read_only(self) -> bool:
        """The file system refuses writes, wherever it is mounted."""
        return "ro" in self.super_options


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A file system that /etc/fstab mounts at boot."""

    point: str
    options: frozenset[str]


def mounts(host: Host) -> list[Mount]:
    """Everything mounted, sorted by mount point; of mounts on top of each other the one that is seen.

    Raises Unreadable.
    """
    try:
        # A service may run in a mount namespace of its own (ProtectSystem=): PID 1 sees what jobs see.
        text = host.read(host.proc / "1/mountinfo")
    except Unreadable:
        text = host.read(host.proc / "self/mountinfo")
    found = {mount.point: mount for mount in map(parse, text.splitlines()) if mount}
    return [found[point] for point in sorted(found)]


def disks(host: Host) -> list[Mount]:
    """The mounts that hold somebody's data: no kernel interfaces, images, container layers or second views of one.

    Of several mounts of one file system (bind mounts) the one nearest the root stands for all. Raises Unreadable.
    """
    chosen: dict[str, Mount] = {}
    for mount in mounts(host):
        if not _holds_data(mount):
            continue
        other = chosen.get(mount.device)
        if other is None or len(mount.point) < len(other.point):
            chosen[mount.device] = mount
    return sorted(chosen.values(), key=lambda mount: mount.point)


def _holds_data(mount: Mount) -> bool:
    if mount.kind in PSEUDO or mount.kind in IMAGES:
        return False
    if mount.kind == "tmpfs":
        # /dev/shm is the check `shm`; the rest below these are handles, or die with their session or pod.
        return not mount.point.startswith(("/dev", "/proc", "/sys", "/run/", "/var/lib/kubelet/"))
    if mount.kind == "overlay":
        return mount.point == "/"  # a container's root; a container host's layers lie on a disk that is looked at
    return not mount.point.startswith(("/proc", "/sys", "/snap/", "/run/credentials"))


def parse(line: str) -> Mount | None:
    """A line of mountinfo (proc_pid_mountinfo(5)), or None when it is none."""
    left, separator, right = line.partition(" - ")
    fields, tail = left.split(), right.split()
    if not separator or len(fields) < 6 or len(tail) < 2:
        return None
    return Mount(
        point=unescape(fields[4]),
        device=fields[2],
        kind=tail[0],
        source=unescape(tail[1]),
        options=frozenset(fields[5].split(",")),
        super_options=frozenset(tail[2].split(",")) if len(tail) > 2 else frozenset(),
    )


def fstab(host: Host) -> Iterator[Expected]:
    """The file systems that /etc/fstab mounts by itself; none without an fstab."""
    try:
        lines = host.read(host.etc / "fstab").splitlines()
    except Unreadable:
        return
    for line in lines:
        fields = line.split("#", 1)[0].split()
        if len(fields) < 3 or not fields[1].startswith("/") or fields[2] == "swap":
            continue
        options = frozenset(fields[3].split(",")) if len(fields) > 3 else frozenset[str]()
        if not options & {"noauto", "bind"} and fields[2] not in PSEUDO:
            yield Expected(point=unescape(fields[1]).rstrip("/") or "/", options=options)


def unescape(field: str) -> str:
    r"""A path as it is: the kernel and fstab write a space as \040."""
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(octal, character)
    return field
