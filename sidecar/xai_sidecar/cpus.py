"""How many CPUs this process may use: the least of its affinity and of all quotas of its control groups.

A quota lies in files of the control group that the process is in, or of any group around it: `cpu.max` in version 2,
`cpu.cfs_quota_us` and `cpu.cfs_period_us` in version 1. /proc/self/cgroup says which groups those are, and
/proc/self/mountinfo where their files are. Inside a container the mount may begin at the container's own group: then
the groups around it cannot be seen.
See man 7 cgroups and https://docs.kernel.org/admin-guide/cgroup-v2.html.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class _Mount(NamedTuple):
    """Where the files of a hierarchy of control groups are.

    Attributes:
        version: 1 or 2.
        top: The group whose files the mount point has, as a path in the hierarchy.
        point: The mount point.
    """

    version: int
    top: PurePosixPath
    point: Path


def usable_cpus(root: Path = Path("/")) -> int:
    """Number of CPUs that this process may use, by its affinity and its control groups' quotas, rounded up.

    Args:
        root: Where `proc` and the mount points are.
    """
    least = min((float(len(os.sched_getaffinity(0))), *_quotas(root)))
    return max(1, math.ceil(least))


def has_quota(root: Path = Path("/")) -> bool:
    """Whether a control group allows this process less time than the CPUs of its affinity have.

    Then all its threads together are stopped for a while once they have used that up, whatever their priority.

    Args:
        root: Where `proc` and the mount points are.
    """
    return min(_quotas(root), default=math.inf) < len(os.sched_getaffinity(0))


def _quotas(root: Path) -> Iterator[float]:
    """All quotas on this process, in CPUs."""
    groups = _groups(root)
    for mount in _mounts(root):
        group = groups.get(mount.version)
        if group is None:
            continue
        for folder in _folders(mount, group):
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):  # no quota here
                yield _quota(folder, mount.version)


def _groups(root: Path) -> dict[int, PurePosixPath]:
    """The control groups that limit this process's CPUs, by version of the interface."""
    found = {}
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            found[2] = PurePosixPath(path)
        elif "cpu" in controllers.split(","):
            found[1] = PurePosixPath(path)
    return found


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in _lines(root / "proc/self/mountinfo"):
        fields, _, rest = line.partition(" - ")
        kind, *options = rest.split()
        version = {"cgroup": 1, "cgroup2": 2}.get(kind)
        if version == 2 or (version == 1 and "cpu" in options[-1].split(",")):
            top, point = (_unescaped(field) for field in fields.split()[3:5])
            yield _Mount(version, PurePosixPath(top), root / point.lstrip("/"))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _unescaped(field: str) -> str:
    """A path of mountinfo, where white space and backslashes are octal numbers."""
    return field.encode().decode("unicode_escape").encode("latin-1").decode()


def _folders(mount: _Mount, group: PurePosixPath) -> Iterator[Path]:
    """The folders of a group and of those around it, as far as they can be seen."""
    seen = group.is_relative_to(mount.top) and ".." not in group.parts
    # Of a group outside of what is mounted, the mount point's own files are all that can be read.
    inside = group.relative_to(mount.top) if seen else PurePosixPath()
    for part in (inside, *inside.parents):
        yield mount.point / part


def _quota(folder: Path, version: int) -> float:
    """The quota of one control group, in CPUs; `math.inf` where there is none."""
    if version == 2:
        quota, period = (folder / "cpu.max").read_text().split()
    else:
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    if quota.strip() in ("max", "-1"):
        return math.inf
    return int(quota) / int(period)
