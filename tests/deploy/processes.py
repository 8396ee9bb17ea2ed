"""A service of docker-compose.yml as a process on this machine: its command, its environment, its health check."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.deploy.composed import filled, made


class ComposedProcess:
    """What the container would run, from `folder` instead of /app.

    `changes` replaces settings whose values only exist between containers (addresses of the stores); `renamed` replaces
    words in commands and values (ports, paths of volumes).
    """

    def __init__(
        self,
        service: Mapping[str, Any],
        *,
        folder: Path,
        changes: Mapping[str, str],
        renamed: Mapping[str, str],
        image: Mapping[str, str],
        log: Path,
    ) -> None:
        self._service = filled(dict(service), made())
        self._renamed = renamed
        own = {name: self._rename(str(value)) for name, value in self._service.get("environment", {}).items()}
        unknown = set(changes) - set(own) - set(image)
        if unknown:
            raise ValueError(f"{unknown} is not given to this service: the test would hide that it is missing.")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**image, **own, **changes, "PATH": path}
        self._folder = folder
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [self._rename(word) for word in self._service["command"]],
                cwd=folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    @property
    def log(self) -> str:
        """What it has written so far, its end."""
        return self._log.read_text(errors="replace")[-3000:]

    def is_healthy(self) -> bool:
        """Runs the service's health check once."""
        kind, *words = self._service["healthcheck"]["test"]
        command = ["sh", "-c", words[0]] if kind == "CMD-SHELL" else words
        done = subprocess.run(
            [self._rename(word) for word in command],
            cwd=self._folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
        )
        return done.returncode == 0

    def stop(self) -> int:
        """SIGTERM, then its exit code. Raises subprocess.TimeoutExpired when it takes longer than the service is given."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=int(str(self._service["stop_grace_period"]).removesuffix("s")))

    def close(self) -> None:
        """Ends it and what it started, whatever state it is in."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=15)

    def _rename(self, word: str) -> str:
        if not self._renamed:
            return word
        # In one pass: what was put in is not looked at again.
        names = sorted(self._renamed, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, names)), lambda found: self._renamed[found[0]], word)


def environment_of_image(value: str) -> dict[str, str]:
    """The variables that an ENV instruction sets."""
    return dict(part.split("=", 1) for part in shlex.split(value))
