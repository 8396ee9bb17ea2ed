"""Credits are whole numbers below 10^14: larger ones would leave Lua's exact integers and its plain notation."""

CREDITS_MAX = 10**14 - 1

# The reserve: what of a balance Redis does not get, to be spent while Redis is away.
RESERVE_PERCENT = 2
RESERVE_MAX = 1000
RESERVED_FROM = 500


def reserve_target(balance: int) -> int:
    """How many credits of a balance are to be kept from Redis: 2 percent, at most 1,000; none below a balance of 500."""
    return min(balance * RESERVE_PERCENT // 100, RESERVE_MAX) if balance >= RESERVED_FROM else 0
