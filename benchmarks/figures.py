"""How figures are kept: one section a benchmark in `benchmarks/results.md`, with the machine and commit it was seen on."""

import os
import platform
import re
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from benchmarks.installation import ROOT

RESULTS = ROOT / "benchmarks" / "results.md"
_PREFACE = """# Benchmark results

Written by `make bench`. Machines are shared and noisy: a ratio is the median over rounds in which both sides were measured
one after the other; absolute figures belong to the machine and the moment.
"""
_SECTION = re.compile(r"^## (\S+) .*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


class NotMeasured(Exception):
    """Something that a benchmark needs is not there; the others go on."""


@dataclass(frozen=True)
class Finding:
    """What a benchmark found: a table, and how it was measured."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    method: str


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def spread(values: Sequence[float], digits: int = 0) -> str:
    """The median, with the lowest and the highest round."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def write(findings: Sequence[Finding], *, seconds: float) -> Path:
    """Puts the findings into the results; sections of benchmarks that were not run stay as they are."""
    known = RESULTS.read_text() if RESULTS.exists() else ""
    sections = {match[1]: match[0].strip() for match in _SECTION.finditer(known)}
    seen_on = (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {_commit()}, {_machine()}; the whole run took {seconds:.0f} s."
    )
    for finding in findings:
        sections[finding.name] = _section(finding, seen_on)
    ordered = [sections[name] for name in sorted(sections)]
    RESULTS.write_text("\n\n".join([_PREFACE.strip(), *ordered]) + "\n")
    return RESULTS


def _section(finding: Finding, seen_on: str) -> str:
    lines = [f"## {finding.name} {finding.title}", ""]
    lines.append("| " + " | ".join(finding.columns) + " |")
    lines.append("|" + "---|" * len(finding.columns))
    lines += ["| " + " | ".join(row) + " |" for row in finding.rows]
    lines += ["", f"Method: {finding.method}"]
    return "\n".join([*lines, "", f"Seen on {seen_on}"])


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results.md")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" with changes" if changed else "")


def _machine() -> str:
    cpus = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.*)$", cpus.read_text() if cpus.exists() else "", re.MULTILINE)
    name = model[1] if model else platform.processor() or platform.machine()
    memory_gb = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} × {name}, {memory_gb:.0f} GiB, {platform.system()}, Python {platform.python_version()}"
