"""The command that proves every balance, when it cannot ask."""

import pytest
from django.core.management import CommandError, call_command

from tests.outages import redis_away

pytestmark = pytest.mark.usefixtures("stores")


@pytest.mark.parametrize(("command", "options"), [("verify_ledger", {}), ("drain", {"once": True})])
def test_a_store_that_is_away_is_said_in_words(command: str, options: dict[str, bool]) -> None:
    with redis_away(), pytest.raises(CommandError, match="A store cannot be reached"):
        call_command(command, **options)
