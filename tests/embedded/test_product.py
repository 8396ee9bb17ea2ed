"""The product's processes beside the engines of the stack."""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from embedded import ports, processes
from embedded.product import Product
from embedded.stack import Stack

ROOT = Path(__file__).resolve().parents[2]
SERVER = (
    "import os, socket, sys, time\n"
    "listening = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
    "os.fork()\n"
    "time.sleep(60)\n"
)


def test_workers_of_a_killed_web_server_give_the_asked_port_back(checkout: Path) -> None:
    port = ports.free_port()
    product = Product(Stack(checkout), port=port)
    argv = [sys.executable, "-c", SERVER, str(port), *product.web.marker.split()]
    server = processes.start(replace(product.web, argv=argv), dies_with_parent=False)
    try:
        deadline = time.monotonic() + 20
        while not server.children() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(server.pid, 9)
        server.wait(timeout=20)
        assert not ports.is_free(port)
        product.check_port()
        assert ports.is_free(port)
    finally:
        product.stop()


def test_the_procfile_starts_what_the_stack_starts(checkout: Path) -> None:
    product = Product(Stack(checkout))
    lines = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
    assert set(lines) == {program.name for program in product.programs}
    for program in (product.worker, product.ingestion, product.beat):
        options = {word for word in program.argv if word.startswith("--")} - {"--workdir"}
        assert options <= set(lines[program.name].split())


def test_no_process_is_taken_for_another(checkout: Path) -> None:
    programs = Product(Stack(checkout)).programs
    for program in programs:
        lines = [" ".join(other.argv) for other in programs if other is not program]
        assert program.marker in " ".join(program.argv)
        assert [line for line in lines if program.marker in line] == []


def test_status_names_every_process(checkout: Path) -> None:
    assert Product(Stack(checkout)).status() == dict.fromkeys(
        ("web", "drain", "worker", "ingestion", "beat"), "stopped"
    )


def test_several_web_processes_share_a_folder_for_their_metrics(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "PROMETHEUS_MULTIPROC_DIR" not in Product(Stack(checkout)).web.environment
    monkeypatch.setenv("WEB_PROCESSES", "2")
    product = Product(Stack(checkout))
    assert product.web.environment["PROMETHEUS_MULTIPROC_DIR"] == str(checkout / ".local" / "metrics")
    assert "PROMETHEUS_MULTIPROC_DIR" not in product.drain.environment
