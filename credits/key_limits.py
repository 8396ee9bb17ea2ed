"""Monthly caps of key families: what is spent of them, and counting it from the ledger when a cap is set."""

import uuid
from collections.abc import Sequence
from typing import Any

import structlog

from accounts.services import KeyChange, set_key_limits
from config.redis import RedisUnavailable
from credits import counters, ledger, loading

log = structlog.get_logger(__name__)


def change_key_limits(**limits: Any) -> KeyChange:
    """As `accounts.services.set_key_limits`; a first cap counts what its family has spent since the month began.

    Live counters of families without a cap are not rebuilt by a load, so the account is loaded anew, which requests under
    way outlive. Should a store be away, the next load does it; until then the cap counts from the last one.
    """
    change = set_key_limits(**limits)
    before, after = change.changed.get("monthly_cap", (None, None))
    if before is None and after is not None:
        try:
            loading.load_account(change.key.account.number, even_if_usable=True)
        except (*RedisUnavailable, loading.LoadContended, ledger.LedgerBehind) as error:
            log.warning("cap_counts_from_next_load", key=change.key.pk, error=type(error).__name__)
    return change


def spent_this_month(families: Sequence[tuple[int, uuid.UUID]]) -> list[int | None]:
    """What each (customer number, family of capped keys) has spent and holds this month; None when nobody knows."""
    try:
        return counters.spent_of_caps(families)
    except RedisUnavailable as error:
        log.warning("spending_unknown", families=len(families), error=type(error).__name__)
        return [None] * len(families)
