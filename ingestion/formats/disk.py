"""No room for temporary files: said in words instead of with a number. Pure."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from config.errors import DomainError

# EFBIG: what a limit on the size of files says (ulimit -f).
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFull(DomainError):
    """507: a disk of this machine is full, or a quota on it is. The job can be taken up when there is room."""

    status = 507
    code = "DISK_FULL"


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turns what the system says of a full disk into `DiskFull`."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in _FULL:
            raise
        raise DiskFull(
            f"There is no room to write ({exc.strerror}). Temporary files are in {tempfile.gettempdir()}: make room there,"
            " or set TMPDIR to a folder on a larger disk."
        ) from exc
