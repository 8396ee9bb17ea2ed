"""Credits are whole numbers below 10^14: larger ones would leave Lua's exact integers and its plain notation."""

CREDITS_MAX = 10**14 - 1
