"""Become process 1 of an image: started by `jail` as root in new name spaces.

It stands in for a container engine: it mounts what an engine mounts, the root read-only, takes the image's
user, directory and environment, and becomes its command. The sole argument is JSON: root, workdir, user, env,
command, and the descriptor on which it tells its process id, as the machine outside counts.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
# Docker's own default; gunicorn's heartbeat files and the shared state live there.
_SHM_SIZE = "64m"
_PR_SET_PDEATHSIG = 1


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _mount_all(root: Path) -> None:
    """Mount over a read-only `root` what a container engine mounts."""
    _mount("--bind", str(root), str(root))
    _mount("-t", "proc", "-o", "nosuid,nodev,noexec", "proc", str(root / "proc"))
    _mount("--rbind", "/sys", str(root / "sys"))
    _mount("-t", "tmpfs", "-o", "nosuid,mode=755", "dev", str(root / "dev"))
    for name in _DEVICES:
        (root / "dev" / name).touch()
        _mount("--bind", f"/dev/{name}", str(root / "dev" / name))
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (root / "dev" / name).symlink_to(f"/proc/self/{target}")
    (root / "dev/shm").mkdir()
    shared = f"nosuid,nodev,noexec,mode=1777,size={_SHM_SIZE}"
    _mount("-t", "tmpfs", "-o", shared, "shm", str(root / "dev/shm"))
    _mount("-t", "tmpfs", "-o", "nosuid,nodev,mode=1777", "tmp", str(root / "tmp"))
    _mount("-o", "remount,bind,ro", str(root))


def main() -> None:
    """Never returns.

    Raises:
        subprocess.CalledProcessError: a mount was refused.
        OSError: the image has no such directory or command.
    """
    order = json.loads(sys.argv[1])
    root = Path(order["root"])
    # /proc is still the one from outside, so this is the number by which the jail can signal.
    with os.fdopen(order["pid_fd"], "w") as tell:
        tell.write(os.readlink("/proc/self") + "\n")
    _mount_all(root)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    uid, gid = (int(number) for number in order["user"].split(":"))
    os.chroot(root)
    os.chdir(order["workdir"])
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    # Nothing may outlive the check, even if that is killed. A change of user resets this, an exec does not.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.execvpe(order["command"][0], order["command"], order["env"])  # noqa: S606


if __name__ == "__main__":
    main()
