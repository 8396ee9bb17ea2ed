"""Whether a process lives: the ones without a port touch a file while they work, `python -m config.alive` looks at it.

    python -m config.alive http://127.0.0.1:8000/api/v1/health     a web process answers
    python -m config.alive --file-within 60                        ALIVE_FILE was touched in the last 60 s

Exit code 0 or 1. It asks no store and loads no Django: a container's health check runs it every few seconds. A store that is
away makes nothing unhealthy, except that a worker that cannot reach its broker does not touch its file meanwhile.
"""

import argparse
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

TIMEOUT_S = 3
TOUCH_EVERY_S = 1.0


class Sign:
    """Touches the file at `path`, once in `TOUCH_EVERY_S` at most; without a path it does nothing."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None
        self._next = 0.0

    def give(self) -> None:
        """Says that this process has come round once more. Raises OSError when the file cannot be written."""
        now = time.monotonic()
        if self._path is not None and now >= self._next:
            self._path.touch()
            self._next = now + TOUCH_EVERY_S


def why_dead(*, url: str | None, within_s: float | None) -> str | None:
    """What speaks against the process being alive, None when nothing does."""
    if url is not None:
        return _silence(url)
    path = os.environ.get("ALIVE_FILE", "")
    if not path:
        return "ALIVE_FILE is not set"
    try:
        age_s = time.time() - Path(path).stat().st_mtime
    except OSError as error:
        return f"{path}: {error.strerror}"
    return f"{path} was touched {age_s:.0f} s ago" if within_s is not None and age_s > within_s else None


def _silence(url: str) -> str | None:
    # Under a name that the service answers to: '.example.com' stands for the domain and what is below it.
    first = os.environ.get("ALLOWED_HOSTS", "").split(",")[0].strip().removeprefix(".")
    headers = {"Host": first} if first not in ("", "*") else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as answer:  # noqa: S310 - the operator's own address
            return None if answer.status == 200 else f"{url} answers with {answer.status}"
    except (urllib.error.URLError, OSError) as error:
        return f"{url}: {error}"


def main(arguments: list[str] | None = None) -> int:
    """The command; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m config.alive")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("url", nargs="?", help="address of the health page of a web process")
    asked.add_argument("--file-within", type=float, metavar="SECONDS", help="ALIVE_FILE was touched in that time")
    given = parser.parse_args(arguments)
    reason = why_dead(url=given.url, within_s=given.file_within)
    if reason:
        print(f"Not alive: {reason}.", file=sys.stderr)  # noqa: T201 - this is a command
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main())
