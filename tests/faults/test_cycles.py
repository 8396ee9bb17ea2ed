"""Some cycles of faults under load, as `make test-long` runs them by the dozen."""

import subprocess
import sys

import pytest

from tests.faults.processes import ROOT

FAULTS = ["redis-kill", "web-replies-dropped", "postgres-kill", "web-kill"]


@pytest.mark.machine
@pytest.mark.timeout(400)
def test_a_few_cycles_of_faults_have_no_violation() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.cycles", "--cycles", str(len(FAULTS)), "--only", ",".join(FAULTS)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=380,
    )
    assert done.returncode == 0, done.stdout[-8000:]
