"""Folders for copies that live as long as the process that made them, killed or not."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "meterhouse-copy-"
_LOCK = "in-use"
# A folder without a lock is that of a process that has only begun, or that died then.
_BEGUN_S = 3600
SWEPT_MAX = 100


@contextmanager
def own_folder(base: str) -> Iterator[Path]:
    """An empty folder below `base` (the system's for "") that nobody else may enter; it goes at the end, with all in it.

    Folders of processes that are gone are removed first: a living one holds the lock in its folder, which the kernel lets
    go however the process ends.
    """
    place = Path(base or tempfile.gettempdir())
    place.mkdir(parents=True, exist_ok=True)
    _sweep(place)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    begun = folder / "begun"
    lock = os.open(begun, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Seen under its name only once it is held: a sweep at the same time finds no lock, or a held one.
        begun.rename(folder / _LOCK)
        (folder / "copy").mkdir(mode=0o700)
        yield folder / "copy"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _sweep(place: Path) -> None:
    for folder in sorted(place.glob(f"{_PREFIX}*"))[:SWEPT_MAX]:
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid() or not _left(folder):
                continue
        except OSError:
            continue  # somebody else has removed it meanwhile
        shutil.rmtree(folder, ignore_errors=True)


def _left(folder: Path) -> bool:
    """Whether the process of this folder is gone."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return time.time() - folder.stat().st_mtime > _BEGUN_S
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
