"""Starting and stopping processes so that none is lost, and none of somebody else's is touched.

A pid file alone proves nothing: after a crash its number may belong to any program. A process counts as ours only when
its command line has the `marker`, a path inside the state folder that no other program has a reason to name.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from embedded.errors import EmbeddedError
from embedded.privileges import Identity

LOG_TAIL_BYTES = 4000
_POLL_S = 0.02
_KILL_TIMEOUT_S = 5.0
_PR_SET_PDEATHSIG = 1
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True, kw_only=True)
class Program:
    """One long-running process: how to start it, recognise it and end it. Times are in seconds."""

    name: str
    argv: Sequence[str]
    marker: str
    pid_file: Path
    log_file: Path
    cwd: Path
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    identity: Identity | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 20.0


def recorded(program: Program) -> psutil.Process | None:
    """The running process that the program's pid file names, if it is this program's."""
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        process = psutil.Process(int(program.pid_file.read_text()))
        if _is(program, process):
            return process
    return None


def find(program: Program) -> psutil.Process | None:
    """The running process of this program, by its pid file or else by its marker: perhaps an orphan of one killed."""
    process = recorded(program)
    if process is not None:
        return process
    for process in psutil.process_iter():
        if _is(program, process):
            with contextlib.suppress(psutil.Error):
                parent = process.parent()
                if parent is not None and _is(program, parent):
                    continue  # a worker of the process that is looked for
            return process
    return None


def _is(program: Program, process: psutil.Process) -> bool:
    try:
        # Some programs rewrite their command line into one string, so arguments cannot be compared one by one.
        return process.status() != psutil.STATUS_ZOMBIE and program.marker in " ".join(process.cmdline())
    except psutil.Error:
        return False


def start(program: Program, *, dies_with_parent: bool) -> psutil.Process:
    """Start the program in a session of its own, so that a Ctrl-C in the terminal reaches the supervisor alone.

    `dies_with_parent` has the kernel send it its stop signal when the supervisor is gone, even by `kill -9`.
    """
    program.log_file.parent.mkdir(parents=True, exist_ok=True)
    program.pid_file.parent.mkdir(parents=True, exist_ok=True)
    with program.log_file.open("ab") as log:
        child = subprocess.Popen(
            list(program.argv),
            cwd=program.cwd,
            env=dict(program.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_before_exec(program, dies_with_parent=dies_with_parent),
        )
    _children[child.pid] = child
    write_atomically(program.pid_file, f"{child.pid}\n")
    return psutil.Process(child.pid)


def _before_exec(program: Program, *, dies_with_parent: bool) -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    supervisor = os.getpid()

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if program.identity is not None:
            program.identity.assume()
        if dies_with_parent and libc is not None:  # behind the change of user, which would clear it
            libc.prctl(_PR_SET_PDEATHSIG, int(program.stop_signal), 0, 0, 0)
            if os.getppid() != supervisor:
                os._exit(1)

    return prepare


def wait_until(ready: Callable[[], bool], program: Program, process: psutil.Process, *, timeout_s: float) -> None:
    """Wait until the program is ready; raises EmbeddedError with the end of its log when it ends or takes too long."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            raise StartFailedError(program, "ended while it was starting")
        if time.monotonic() > deadline:
            raise StartFailedError(program, f"was not ready after {timeout_s:.0f} s")
        time.sleep(_POLL_S)


class StartFailedError(EmbeddedError):
    """The program did not come up; carries the end of its log."""

    def __init__(self, program: Program, what: str) -> None:
        self.log = tail(program.log_file)
        super().__init__(f"{program.name} {what}. {hint(self.log)}The end of {program.log_file}:\n{self.log}")


def hint(said: str) -> str:
    """What a program's last words mean for the user, where that is known; "" where not."""
    return "The disk is full: make room and try again.\n" if "No space left on device" in said else ""


def tail(log_file: Path) -> str:
    """The last lines of a log file, "" when there is none."""
    try:
        with log_file.open("rb") as log:
            log.seek(max(0, log_file.stat().st_size - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")
    except OSError:
        return ""


def stop(program: Program) -> bool:
    """End the program, with its children and in the end by force; True when there was one to end."""
    first = process = find(program)
    while process is not None:  # workers of a server that was killed may still be there, one after the other
        family = [process]
        with contextlib.suppress(psutil.Error):
            family += process.children(recursive=True)
        with contextlib.suppress(psutil.Error):
            process.send_signal(program.stop_signal)
        alive = _wait_for_end(family, timeout_s=program.stop_timeout_s)
        for survivor in alive:
            with contextlib.suppress(psutil.Error):
                survivor.kill()
        _wait_for_end(alive, timeout_s=_KILL_TIMEOUT_S)
        process = find(program)
    _reap()
    program.pid_file.unlink(missing_ok=True)
    return first is not None


def _wait_for_end(family: Sequence[psutil.Process], *, timeout_s: float) -> list[psutil.Process]:
    """Wait until the processes have ended; returns those that have not.

    A zombie has ended: whoever inherited it, in a container often a slow init, may take seconds to bury it.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        alive = [process for process in family if _runs(process)]
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(_POLL_S)


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _reap() -> None:
    """Take note of children that have ended."""
    for pid in [pid for pid, child in _children.items() if child.poll() is not None]:
        del _children[pid]


def write_atomically(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write the file so that a reader, or a crash, sees the old text or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
