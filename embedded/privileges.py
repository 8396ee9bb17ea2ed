"""Running PostgreSQL when the user is root, which PostgreSQL itself refuses.

The server then runs as an unprivileged user that keeps one right of root's: to pass through folders. So a checkout below
`/root` works, and no folder's permissions are changed.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import sys
from dataclasses import dataclass
from pathlib import Path

UNPRIVILEGED_USER = "nobody"

_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


@dataclass(frozen=True)
class Identity:
    """The user a child process runs as."""

    uid: int
    gid: int

    def assume(self) -> None:
        """Become this user in a forked child, keeping CAP_DAC_OVERRIDE where the system lets it be kept."""
        libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        if libc is not None:
            libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
        os.setgroups([])
        os.setgid(self.gid)
        os.setuid(self.uid)
        if libc is not None:
            header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
            bit = 1 << _CAP_DAC_OVERRIDE
            libc.capset(header, (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0))
            libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)

    def own(self, path: Path) -> None:
        """Give the path to this user."""
        os.chown(path, self.uid, self.gid)


def unprivileged(data: Path) -> Identity | None:
    """Who shall run a server that refuses root: nobody special for a normal user (None), else the data's owner or
    `nobody`."""
    if os.geteuid() != 0:
        return None
    owner = data.stat().st_uid if data.exists() else 0
    entry = pwd.getpwuid(owner) if owner else pwd.getpwnam(UNPRIVILEGED_USER)
    return Identity(entry.pw_uid, entry.pw_gid)
