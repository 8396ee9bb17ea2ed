"""The planted faults still fit the code; that each one is caught is shown by `make test-long`."""

import pytest

from tests.faults.planted import FAULTS, ROOT, Fault


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_guard_that_a_fault_breaks_stands_once(fault: Fault) -> None:
    assert (ROOT / fault.path).read_text().count(fault.guard) == 1


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_tests_that_must_catch_a_fault_exist(fault: Fault) -> None:
    paths, _, _ = fault.tests.partition(" -m ")
    assert [path for path in paths.split() if not (ROOT / path).exists()] == []
