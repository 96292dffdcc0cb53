"""How many CPUs a process may use, by made-up trees of control groups."""

import os
import subprocess
import sys

import pytest

from xai_sidecar import cpus
from xai_sidecar.cpus import usable_cpus

# As Linux writes them: without control groups, with version 2 alone, with version 1, and with both.
V2_MOUNT = "30 23 0:26 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = "32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
OTHER_MOUNTS = (
    "23 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
    "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
)


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


@pytest.fixture
def tree(tmp_path):
    """Makes files under a root; the paths are those of Linux."""

    def make(cgroup, mounts, **files):
        contents = {"proc/self/cgroup": cgroup, "proc/self/mountinfo": OTHER_MOUNTS + mounts}
        for name, text in {**contents, **files.pop("files", {})}.items():
            path = tmp_path / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


def v2(*quotas):
    """Contents of `cpu.max` of groups nested in each other, the outermost first, at /a/b/c…; None for no such file."""
    folders = ["/".join(["sys/fs/cgroup", *"abcdef"[:depth]]) for depth in range(len(quotas))]
    return {f"{folder}/cpu.max": f"{quota}\n" for folder, quota in zip(folders, quotas, strict=True) if quota}


def v1(folder, quota, period=100_000):
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": f"{period}\n"}


def test_affinity_alone(tmp_path):
    assert usable_cpus(tmp_path) == 8


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 8),
        ("400000 100000", 4),
        ("150000 100000", 2),  # rounded up: a second thread gets the half
        ("20000 100000", 1),
        ("25000 50000", 1),
        ("1600000 100000", 8),  # more than there are
        ("nonsense", 8),
        ("100000 0", 8),
    ],
)
def test_a_containers_own_group(tree, quota, expected):
    """In a container with a namespace of its own, its group is the root of what it sees."""
    assert usable_cpus(tree("0::/\n", V2_MOUNT.format(top="/"), files=v2(quota))) == expected


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ((None, "max 100000", "max 100000", "300000 100000"), 3),  # at the process's own group
        ((None, "200000 100000", "max 100000", "max 100000"), 2),  # at the outermost one that can have any
        ((None, "500000 100000", "200000 100000", "300000 100000"), 2),  # between: the least of all counts
        ((None, None, "200000 100000", None), 2),  # groups without the controller
    ],
)
def test_nested_groups(tree, quotas, expected):
    assert usable_cpus(tree("0::/a/b/c\n", V2_MOUNT.format(top="/"), files=v2(*quotas))) == expected


def test_a_group_beside_ones_own_does_not_count(tree):
    files = {"sys/fs/cgroup/a/x/cpu.max": "100000 100000\n", "sys/fs/cgroup/a/b/d/cpu.max": "100000 100000\n"}
    assert usable_cpus(tree("0::/a/b\n", V2_MOUNT.format(top="/"), files=files)) == 8


def test_a_mount_that_begins_at_the_containers_group(tree):
    """Without a namespace, /proc/self/cgroup has the host's path, and the mount only a part of it."""
    files = {"sys/fs/cgroup/cpu.max": "max 100000\n", "sys/fs/cgroup/work/cpu.max": "300000 100000\n"}
    assert usable_cpus(tree("0::/docker/1f2e/work\n", V2_MOUNT.format(top="/docker/1f2e"), files=files)) == 3


@pytest.mark.parametrize("group", ["/../other", "/elsewhere"])
def test_a_group_outside_of_what_is_mounted(tree, group):
    files = {"sys/fs/cgroup/cpu.max": "300000 100000\n"}
    assert usable_cpus(tree(f"0::{group}\n", V2_MOUNT.format(top="/docker/1f2e"), files=files)) == 3


@pytest.mark.parametrize(("quota", "expected"), [(-1, 8), (250_000, 3), (10_000, 1)])
def test_version_1(tree, quota, expected):
    cgroup = "5:cpuset:/\n4:cpu,cpuacct:/docker/1f2e\n1:name=systemd:/docker/1f2e\n0::/system.slice\n"
    files = v1("sys/fs/cgroup/cpu,cpuacct", quota)
    assert usable_cpus(tree(cgroup, V1_MOUNT.format(top="/docker/1f2e"), files=files)) == expected


def test_version_1_nested_with_periods_of_their_own(tree):
    files = {
        **v1("sys/fs/cgroup/cpu,cpuacct", -1),
        **v1("sys/fs/cgroup/cpu,cpuacct/pods", 100_000, 50_000),
        **v1("sys/fs/cgroup/cpu,cpuacct/pods/one", 600_000, 100_000),
    }
    assert usable_cpus(tree("4:cpu,cpuacct:/pods/one\n", V1_MOUNT.format(top="/"), files=files)) == 2


def test_both_versions_at_once(tree):
    """The hybrid of systemd: processors by version 1, the unified tree beside it."""
    cgroup = "4:cpu,cpuacct:/one\n0::/one\n"
    mounts = V1_MOUNT.format(top="/") + V2_MOUNT.format(top="/").replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")
    assert usable_cpus(tree(cgroup, mounts, files=v1("sys/fs/cgroup/cpu,cpuacct/one", 300_000))) == 3


def test_a_mount_point_with_a_space(tree):
    mount = V2_MOUNT.format(top="/").replace("/sys/fs/cgroup ", r"/sys/control\040groups ")
    files = {"sys/control groups/a/cpu.max": "300000 100000\n"}
    assert usable_cpus(tree("0::/a\n", mount, files=files)) == 3


def test_the_smaller_of_affinity_and_quota(tree, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5})
    assert usable_cpus(tree("0::/\n", V2_MOUNT.format(top="/"), files=v2("400000 100000"))) == 2


def test_the_machine_at_hand_can_be_read(monkeypatch):
    monkeypatch.undo()
    assert 1 <= usable_cpus() <= len(os.sched_getaffinity(0))
    assert cpus._groups(cpus.Path("/"))  # Linux always has at least one


def test_one_thread_where_the_affinity_is_one_cpu():
    script = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from xai_sidecar.cpus import usable_cpus; print(usable_cpus())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "1"


@pytest.mark.parametrize(
    ("quota", "less"), [("max 100000", False), ("800000 100000", False), ("790000 100000", True), ("1 0", False)]
)
def test_a_quota_that_takes_something_away(tree, quota, less):
    root = tree("0::/a\n", V2_MOUNT.format(top="/"), files=v2("max 100000", quota))
    assert cpus.has_quota(root) is less


def test_no_quota(tmp_path):
    assert not cpus.has_quota(tmp_path)
