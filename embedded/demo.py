"""`make demo`, `make up` and `make down`: the product whole, with an operator, a customer and data to search."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import NoReturn
from urllib.parse import urlencode, urlsplit

from embedded import environment
from embedded.errors import EmbeddedError
from embedded.product import Answer, Product
from embedded.stack import Stack

ROOT = Path(__file__).resolve().parent.parent
CUSTOMER_EMAIL = "demo@localhost.localdomain"
CUSTOMER_NAME = "Demo customer"
STARTING_CREDITS = 1000
SAMPLE_ROWS = 100_000
QUERY = {"filters": {"country": "USA"}, "fields": ["user_id", "name", "email", "city"], "limit": 3}
_WATCH_EVERY_S = 1.0
_RECOVERY_S = 20.0
_SHOWN_LINES = 40


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0 when all is well."""
    parser = argparse.ArgumentParser(prog="python -m embedded.demo", description=__doc__)
    parser.add_argument("command", choices=["demo", "up", "down", "status"])
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to work in")
    options = parser.parse_args(arguments)
    commands: dict[str, Callable[[Path], int]] = {"demo": _demo, "up": _up, "down": _down, "status": _status}
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    try:
        return commands[options.command](options.root)
    except EmbeddedError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"\nThe operating system refused: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _deaf_to_signals() -> None:
    """While things are being stopped, a second Ctrl-C must not leave half of them running."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _port() -> int:
    text = os.environ.get("PORT", "") or "0"
    if not text.isdigit() or int(text) > 65535:
        raise EmbeddedError(f"PORT={text} is not a port: choose one from 1 to 65535.")
    return int(text)


def _say(text: str) -> None:
    print(text, flush=True)


def _demo(root: Path) -> int:
    once = os.environ.get("ONCE", "") not in {"", "0"}
    stack = Stack(root)
    product = Product(stack, port=_port())
    with stack.locked():
        if product.is_running():
            _say(f"Meterhouse is up in the background already, at {product.base_url}.")
            _show_query(product, stack)
            _say("`make down` stops it.")
            return 0
        product.check_port()
        with ExitStack() as cleanup:
            _start_engines(stack, cleanup, dies_with_parent=True)
            cleanup.callback(product.stop)
            cleanup.callback(_deaf_to_signals)
            _bring_up(stack, product, dies_with_parent=True)
            _show_query(product, stack)
            if once:
                return 0
            try:
                _invite(stack, product)
                _watch(stack, product)
            except KeyboardInterrupt:
                _say("\nStopping.")
                return 0


def _watch(stack: Stack, product: Product) -> NoReturn:
    """Start again whatever ends; raises KeyboardInterrupt when make was interrupted alone."""
    was_catching = _parent_catches_interrupt()
    while True:
        time.sleep(_WATCH_EVERY_S)
        if was_catching and not _parent_catches_interrupt():
            raise KeyboardInterrupt
        engines = stack.revive()
        if product.start(dies_with_parent=True) or engines:
            _say(f"A process had ended ({', '.join(engines) or 'web, drain, a worker or beat'}); it runs again.")


def _parent_catches_interrupt() -> bool:
    """Whether the parent process has a handler for SIGINT.

    A terminal's Ctrl-C reaches make and this process alike. A SIGINT sent to make alone makes it give up its handler and wait
    for its recipe, which it does not tell: the missing handler is the only sign.
    """
    try:
        status = Path(f"/proc/{os.getppid()}/status").read_text()
    except OSError:
        return False
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (signal.SIGINT - 1) & 1)


def _up(root: Path) -> int:
    stack = Stack(root)
    product = Product(stack, port=_port())
    with stack.locked():
        product.check_port()
        were_up = product.is_running()
        with ExitStack() as cleanup:
            _start_engines(stack, cleanup, dies_with_parent=False)
            if not were_up:
                cleanup.callback(product.stop)
            cleanup.callback(_deaf_to_signals)
            changed = _bring_up(stack, product, dies_with_parent=False)
            cleanup.pop_all()  # all is well: nothing is stopped
        if were_up and not changed:
            _say(f"Meterhouse is up already, at {product.base_url}.")
        else:
            _invite(stack, product)
    return 0


def _down(root: Path) -> int:
    stack = Stack(root)
    with stack.locked():
        _deaf_to_signals()
        Product(stack).stop()
        stack.stop()
    _say("Meterhouse is down.")
    return 0


def _status(root: Path) -> int:
    stack = Stack(root)
    for name, condition in {**stack.status(), **Product(stack).status()}.items():
        _say(f"{name}: {condition}")
    return 0


def _start_engines(stack: Stack, cleanup: ExitStack, *, dies_with_parent: bool) -> None:
    """Start the engines that do not run yet, and have the clean-up stop these."""
    _say("Starting PostgreSQL, Redis and ClickHouse …")
    for engine in stack.start(dies_with_parent=dies_with_parent):
        cleanup.callback(engine.stop)


def _bring_up(stack: Stack, product: Product, *, dies_with_parent: bool) -> bool:
    """Schemas, processes, and what the demo needs in them; True when a process was started."""
    processes_were_up = product.is_running()
    if not processes_were_up:
        _say("Bringing the schemas up to date …")
        product.migrate()
    known = environment.read(stack.env_file)
    product.manage("create_operator", "--email", known["OPERATOR_EMAIL"], "--if-missing")
    started = product.serve(dies_with_parent=dies_with_parent)
    _make_customer(stack, product)
    _load_sample(stack, product)
    # Last, so that what loads for seconds does not keep the first call waiting.
    return product.start(dies_with_parent=dies_with_parent) or started


def _make_customer(stack: Stack, product: Product) -> None:
    """A customer whose keys are in `.local/env`: made when the keys there are not known to the running product."""
    known = environment.read(stack.env_file)
    answer = _credits(product, known.get("DEMO_API_KEY", ""))
    if answer.status == 200:
        return
    if answer.status != 401:
        raise EmbeddedError(f"The product answered {answer.status} to GET /api/v1/credits: {json.dumps(answer.body)}")
    _say("Making a customer with keys and credits …")
    email = CUSTOMER_EMAIL.replace("@", f"+{int(time.time())}@")
    made = json.loads(
        product.manage(
            "create_customer", "--email", email, "--name", CUSTOMER_NAME, "--credits", str(STARTING_CREDITS), "--json"
        )
    )
    account = str(made["account_id"])
    unlimited = json.loads(
        product.manage("create_key", "--account", account, "--label", "demo", "--rpm", "0", "--json")
    )
    limited = json.loads(product.manage("create_key", "--account", account, "--label", "demo, limited", "--json"))
    stack.remember(
        {"DEMO_ACCOUNT_ID": account, "DEMO_API_KEY": unlimited["api_key"], "DEMO_LIMITED_API_KEY": limited["api_key"]}
    )


def _load_sample(stack: Stack, product: Product) -> None:
    """Generated records, when there are none at all."""
    if _record_count(stack.urls["CLICKHOUSE_URL"]):
        return
    _say(f"Loading {SAMPLE_ROWS:,} generated records …")
    sample = stack.state / "sample.csv"
    try:
        product.manage("generate_records", "--rows", str(SAMPLE_ROWS), "--out", str(sample))
        product.manage("ingest", str(sample), "--again", show=True)
    finally:
        sample.unlink(missing_ok=True)


def _record_count(url: str) -> int:
    parts = urlsplit(url)
    connection_class = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = connection_class(parts.hostname or "", parts.port, timeout=30)
    try:
        path = "/?" + urlencode({"database": parts.path.strip("/") or "default"})
        headers = {"X-ClickHouse-User": parts.username or "default", "X-ClickHouse-Key": parts.password or ""}
        connection.request("POST", path, "SELECT count() FROM records", headers)
        response = connection.getresponse()
        text = response.read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise EmbeddedError(f"ClickHouse does not answer: {error}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise EmbeddedError(f"ClickHouse cannot count the records: {text}")
    return int(text)


def _show_query(product: Product, stack: Stack) -> None:
    """One metered query over HTTP, with the balance before and after it."""
    key = environment.read(stack.env_file)["DEMO_API_KEY"]
    before = _balance(product, key)
    answer = product.request("POST", "/api/v1/query", key=key, body=QUERY)
    if answer.status == 402:
        account = environment.read(stack.env_file)["DEMO_ACCOUNT_ID"]
        product.manage("top_up", "--account", account, "--amount", str(STARTING_CREDITS), "--reason", "demo")
        before = _balance(product, key)
        answer = product.request("POST", "/api/v1/query", key=key, body=QUERY)
    if answer.status != 200:
        raise EmbeddedError(f"The query was answered with {answer.status}: {json.dumps(answer.body)}")
    shown = json.dumps(answer.body, indent=2, ensure_ascii=False).splitlines()
    _say(f"\nBalance before: {before:,} credits")
    _say(f"POST {product.base_url}/api/v1/query {json.dumps(QUERY)}")
    _say("\n".join(shown[:_SHOWN_LINES] + (["…"] if len(shown) > _SHOWN_LINES else [])))
    _say(f"Balance after: {_balance(product, key):,} credits\n")


def _credits(product: Product, key: str) -> Answer:
    """What the API says about the key's credits; waits while it cannot, as just after a restart of an engine."""
    deadline = time.monotonic() + _RECOVERY_S
    while True:
        answer = product.request("GET", "/api/v1/credits", key=key)
        if answer.status != 503 or time.monotonic() > deadline:
            return answer
        time.sleep(0.2)


def _balance(product: Product, key: str) -> int:
    answer = _credits(product, key)
    if answer.status != 200:
        raise EmbeddedError(f"GET /api/v1/credits was answered with {answer.status}: {json.dumps(answer.body)}")
    return int(answer.body["data"]["balance"])


def _invite(stack: Stack, product: Product) -> None:
    known = environment.read(stack.env_file)
    _say(
        f"Meterhouse is up at {product.base_url}\n"
        f"  API documents   {product.base_url}/api/docs\n"
        f"  operator admin  {product.base_url}/admin/  ({known['OPERATOR_EMAIL']}, password in {stack.env_file})\n"
        f"  keys and URLs   source {stack.env_file}"
    )


if __name__ == "__main__":
    sys.exit(main())
