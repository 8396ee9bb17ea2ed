"""Which grant pays: the burn-down order and its draws."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credits.grants import OpenGrant, burn_down_order, draw

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def grant(remaining: int = 10, **changes: object) -> OpenGrant:
    values = {
        "id": uuid.uuid4(),
        "kind": "purchase",
        "remaining": remaining,
        "priority": 100,
        "expires_at": None,
        "effective_at": NOW,
        "created_at": NOW,
    }
    return OpenGrant(**{**values, **changes})  # type: ignore[arg-type]


def test_burn_down_order_is_priority_expiry_promo_effective_created_and_ending_grants_last() -> None:
    later = NOW + timedelta(days=1)
    expected = [
        grant(priority=1),
        grant(expires_at=NOW + timedelta(days=5)),
        grant(expires_at=NOW + timedelta(days=9)),
        grant(kind="promo", effective_at=later),
        grant(),
        grant(created_at=later),
        grant(effective_at=later),
        grant(priority=0, ending=True),
    ]
    assert burn_down_order(list(reversed(expected))) == expected


def test_draw_refuses_more_than_there_is() -> None:
    with pytest.raises(ValueError, match="do not cover the last 1 credits"):
        draw([grant(10)], 11)


@given(st.lists(st.integers(0, 50), max_size=8), st.data())
def test_draw_takes_exactly_the_amount_and_never_below_zero(remainders: list[int], data: st.DataObject) -> None:
    grants = [grant(remaining) for remaining in remainders]
    amount = data.draw(st.integers(0, sum(remainders)))
    draws = draw(grants, amount)
    assert sum(part for _, part in draws) == amount
    assert all(part > 0 for _, part in draws)
    assert sum(grant.remaining for grant in grants) == sum(remainders) - amount
    assert all(grant.remaining >= 0 for grant in grants)
