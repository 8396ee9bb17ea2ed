"""What a request costs. Pure: the price list of the product stands here."""

BASE_CREDITS = 1
RECORDS_PER_CREDIT = 100
# The lookup of one person. Without a match the hold is released, so it costs nothing.
LOOKUP_COST = BASE_CREDITS


def cost(returned: int) -> int:
    """Credits for a request that returned `returned` records: `1 + returned // 100`. Zero records cost the base 1."""
    if returned < 0:
        raise ValueError(f"returned must not be negative, got {returned}")
    return BASE_CREDITS + returned // RECORDS_PER_CREDIT


def affordable(price: int) -> int:
    """The most records that a request may return and never cost more than `price` (at least 1): `100 * price - 1`."""
    if price < BASE_CREDITS:
        raise ValueError(f"a request costs at least {BASE_CREDITS}, got {price}")
    return RECORDS_PER_CREDIT * (price - BASE_CREDITS + 1) - 1


def highest_cost(limit: int) -> int:
    """The most credits that a request for at most `limit` records can cost: what is held before it runs."""
    return cost(limit)
