"""`python -m embedded up|down|status|run`: the engines alone, without the product."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from embedded.errors import EmbeddedError
from embedded.stack import Stack

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0 when all is well."""
    parser = argparse.ArgumentParser(
        prog="python -m embedded", description="PostgreSQL, Redis and ClickHouse from PyPI."
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout whose .local holds the state")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start the engines in the background and write .local/env")
    commands.add_parser("down", help="stop them")
    commands.add_parser("status", help="say how each one is; exits with 1 unless all are healthy")
    commands.add_parser("run", help="start them and stop them again at Ctrl-C")
    options = parser.parse_args(arguments)
    try:
        return {"up": _up, "down": _down, "status": _status, "run": _run}[options.command](Stack(options.root))
    except EmbeddedError as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f"The operating system refused: {error}", file=sys.stderr)
    return 1


def _up(stack: Stack) -> int:
    with stack.locked():
        stack.start(dies_with_parent=False)
    print(f"The engines are up. Their addresses: source {stack.env_file}")
    return 0


def _down(stack: Stack) -> int:
    with stack.locked():
        stack.stop()
    print("The engines are down.")
    return 0


def _status(stack: Stack) -> int:
    status = stack.status()
    for name, condition in status.items():
        print(f"{name}: {condition}")
    for name in stack.given:
        print(f"{name}: given by the environment")
    return 0 if all(condition == "healthy" for condition in status.values()) else 1


def _run(stack: Stack) -> int:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    with stack.locked():
        try:
            stack.start(dies_with_parent=True)
            print(f"The engines are up until Ctrl-C. Their addresses: source {stack.env_file}", flush=True)
            stop.wait()
        finally:
            stack.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
