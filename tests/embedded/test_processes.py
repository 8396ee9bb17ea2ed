"""Starting, recognising and ending processes; ports."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from embedded import ports, processes
from embedded.ports import PortBusyError
from embedded.processes import Program, StartFailedError

SLEEP = "import sys, time; time.sleep(60)"


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """A program that sleeps, marked by the test's folder."""
    sleeper = Program(
        name="sleeper",
        argv=[sys.executable, "-c", SLEEP, str(tmp_path)],
        marker=str(tmp_path),
        pid_file=tmp_path / "pids" / "sleeper.pid",
        log_file=tmp_path / "log" / "sleeper.log",
        cwd=tmp_path,
        stop_timeout_s=5,
    )
    yield sleeper
    processes.stop(sleeper)


def test_started_program_is_found_by_its_pid_file(program: Program) -> None:
    process = processes.start(program, dies_with_parent=True)
    assert program.pid_file.read_text() == f"{process.pid}\n"
    assert processes.recorded(program) == process


def test_program_is_found_when_its_pid_file_is_lost(program: Program) -> None:
    process = processes.start(program, dies_with_parent=True)
    program.pid_file.unlink()
    assert processes.recorded(program) is None
    assert processes.find(program) == process


def test_pid_file_of_another_program_is_not_believed(program: Program) -> None:
    program.pid_file.parent.mkdir()
    program.pid_file.write_text(f"{os.getpid()}\n")
    assert processes.find(program) is None
    assert processes.stop(program) is False
    assert not program.pid_file.exists()
    assert psutil.pid_exists(os.getpid())


@pytest.mark.parametrize("content", ["", "nonsense", "-1", "99999999999"])
def test_broken_pid_file_means_not_running(program: Program, content: str) -> None:
    program.pid_file.parent.mkdir()
    program.pid_file.write_text(content)
    assert processes.find(program) is None


def test_stop_ends_the_program(program: Program) -> None:
    process = processes.start(program, dies_with_parent=True)
    assert processes.stop(program) is True
    assert not process.is_running()
    assert not program.pid_file.exists()


def test_program_that_ends_at_once_fails_with_its_log(tmp_path: Path, program: Program) -> None:
    broken = Program(
        name="broken",
        argv=[sys.executable, "-c", "print('No space left on device'); raise SystemExit(3)", str(tmp_path)],
        marker=str(tmp_path),
        pid_file=program.pid_file,
        log_file=program.log_file,
        cwd=tmp_path,
    )
    process = processes.start(broken, dies_with_parent=True)
    with pytest.raises(StartFailedError, match="The disk is full") as raised:
        processes.wait_until(lambda: False, broken, process, timeout_s=20)
    assert raised.value.log == "No space left on device\n"


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has started the program `sleeper`, and does not look after it until it reads a line."""
    script = (
        "import sys; from pathlib import Path; from embedded import processes; from embedded.processes import Program\n"
        "folder = Path(sys.argv[1])\n"
        f"argv = [sys.executable, '-c', {SLEEP!r}, str(folder)]\n"
        "child = Program(name='sleeper', argv=argv, marker=str(folder), pid_file=folder / 'pids' / 'sleeper.pid',\n"
        "                log_file=folder / 'log' / 'sleeper.log', cwd=folder)\n"
        "processes.start(child, dies_with_parent=True); print('started', flush=True); input()\n"
    )
    root = Path(processes.__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        yield process
        process.kill()


def test_program_dies_with_its_supervisor(program: Program, supervisor: subprocess.Popen[str]) -> None:
    sleeper = psutil.Process(int(program.pid_file.read_text()))
    supervisor.kill()
    gone, _ = psutil.wait_procs([sleeper], timeout=10)
    assert gone == [sleeper]


def test_stop_does_not_wait_for_a_zombie_to_be_buried(program: Program, supervisor: subprocess.Popen[str]) -> None:
    patient = replace(program, marker=f"{SLEEP} {program.marker}", stop_timeout_s=3600)
    sleeper = psutil.Process(int(program.pid_file.read_text()))
    assert processes.stop(patient) is True
    assert supervisor.poll() is None
    assert sleeper.status() == psutil.STATUS_ZOMBIE


def test_busy_port_is_exchanged_for_a_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        chosen = ports.choose(port)
        assert chosen != port
        assert ports.is_free(chosen)


def test_busy_port_that_was_asked_for_is_an_error() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(PortBusyError, match="is taken by another program"),
    ):
        ports.insist(taken.getsockname()[1], "the web server")
