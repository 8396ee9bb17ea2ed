"""`python -m benchmarks [--only P1,P4]`: measures and writes `benchmarks/results.md`."""

import argparse
import os
import sys
import time
from collections.abc import Callable

import django

from benchmarks import (
    admit_settle,
    drain_speed,
    figures,
    hot_account,
    ingest_100m,
    ingest_csv,
    ingest_engines,
    ingest_formats,
    metered_requests,
    web_servers,
)
from benchmarks.figures import Finding, NotMeasured
from benchmarks.installation import Installation, installation
from embedded.errors import EmbeddedError

BENCHMARKS: dict[str, Callable[[Installation, Callable[[str], None]], Finding]] = {
    "P1": metered_requests.measure,
    "P4": admit_settle.measure,
    "P5": hot_account.measure,
    "P6": drain_speed.measure,
    "P7": ingest_csv.measure,
    "P8": ingest_formats.measure,
    "P12": ingest_engines.measure,
    "W": web_servers.measure,
    "P7-100M": ingest_100m.measure,
}
# Takes an hour and 40 GB of disk: run when it is named.
NAMED_ONLY = {"P7-100M"}


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmarks; the exit code is 0 when all were measured, whatever they found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        default=",".join(name for name in BENCHMARKS if name not in NAMED_ONLY),
        help=f"some of {', '.join(BENCHMARKS)}",
    )
    chosen = [name.strip().upper() for name in parser.parse_args(arguments).only.split(",") if name.strip()]
    unknown = sorted(set(chosen) - set(BENCHMARKS))
    if unknown or not chosen:
        parser.error(f"there is no benchmark {', '.join(unknown) or 'chosen'}; there are {', '.join(BENCHMARKS)}")
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {text}", flush=True)

    findings = []
    try:
        say("Starting engines of their own …")
        with installation() as measured:
            os.environ.update(measured.environment)
            os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
            django.setup()
            for name in sorted(set(chosen)):
                say(f"{name} …")
                try:
                    findings.append(BENCHMARKS[name](measured, say))
                except NotMeasured as reason:
                    say(str(reason))
    except EmbeddedError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; nothing was written.", file=sys.stderr)
        return 130
    if not findings:
        return 1
    path = figures.write(findings, seconds=time.monotonic() - begun)
    for finding in findings:
        for row in finding.rows:
            say(f"{finding.name}  " + "   ".join(row))
    say(f"written to {path.relative_to(path.parent.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
