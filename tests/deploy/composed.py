"""docker-compose.yml and the Dockerfile as the tests read them: merged, with variables filled in, without a container."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
EXAMPLE = ROOT / "deploy" / "compose" / "example.env"
# `$$` is a dollar sign for the container's own shell; the rest is filled in before it starts.
_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Z_][A-Z0-9_]*)(?:(:\?|:-)([^{}]*))?\})")


def compose() -> dict[str, Any]:
    """The whole file, merge keys resolved."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def services() -> dict[str, dict[str, Any]]:
    """Service → what the file says of it."""
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def ours() -> dict[str, dict[str, Any]]:
    """The services that run the product's own code."""
    images = {"product", "spark"}
    return {name: found for name, found in services().items() if found.get("build", {}).get("target") in images}


def variables(value: Any) -> dict[str, tuple[str, str]]:
    """Variable → (operator, what follows it), of every `${…}` in the value."""
    return {match[2]: (match[3] or "", match[4] or "") for match in _VARIABLE.finditer(str(value)) if match[2]}


def filled(value: Any, given: Mapping[str, str]) -> Any:
    """The value with every variable filled in, as compose does it. Raises KeyError for a missing one that has no default."""
    if isinstance(value, dict):
        return {name: filled(part, given) for name, part in value.items()}
    if isinstance(value, list):
        return [filled(part, given) for part in value]
    return _VARIABLE.sub(lambda match: _fill(match, given), value) if isinstance(value, str) else value


def _fill(match: re.Match[str], given: Mapping[str, str]) -> str:
    if match[1]:
        return "$"
    return given.get(match[2]) or match[4] if match[3] == ":-" else given[match[2]]


def example() -> dict[str, str]:
    """Variable → value as the example gives it; secrets are empty."""
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@lru_cache(maxsize=1)
def made() -> dict[str, str]:
    """What `make-env.sh` makes of the example."""
    done = subprocess.run(
        ["sh", str(ROOT / "deploy" / "compose" / "make-env.sh")], capture_output=True, text=True, check=True, timeout=30
    )
    lines = [line for line in done.stdout.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@dataclass
class Stage:
    """One stage of the Dockerfile: where it comes from, and its instructions in order as (name, value)."""

    name: str
    parent: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def last(self, instruction: str) -> str | None:
        """The value that counts of an instruction that may be repeated."""
        return next((value for name, value in reversed(self.steps) if name == instruction), None)


def stages() -> dict[str, Stage]:
    """Name → stage, in order."""
    found: dict[str, Stage] = {}
    for step in DockerfileParser(path=str(ROOT / "Dockerfile")).structure:
        name, value = step["instruction"], step["value"]
        if name == "FROM":
            parent, _, own = value.partition(" AS ")
            found[own] = Stage(own, parent)
        elif name != "COMMENT":
            list(found.values())[-1].steps.append((name, value))
    return found


def copied(stage: Stage) -> list[tuple[str, str]]:
    """(source, target) of what the stage copies out of the checkout."""
    pairs = [tuple(value.split()) for name, value in stage.steps if name == "COPY" and "--from" not in value]
    return [(source, target) for source, target in pairs]
