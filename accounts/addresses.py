"""Network addresses in a form that Redis' Lua can compare: 32 hexadecimal digits, IPv4 mapped into IPv6. Pure."""

import ipaddress
from functools import lru_cache


@lru_cache(maxsize=4096)
def as_hex(address: str) -> str:
    """An address as 32 hexadecimal digits; '' when it is none."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    return f"{_number(parsed):032x}"


def as_ranges(networks: list[str]) -> str:
    """Networks as `low-high` pairs joined by commas, '' for none. Raises ValueError naming what is no network."""
    return ",".join(_range(network) for network in networks)


def normalised(text: str) -> str:
    """A network as it is kept: without host bits, an address without its length. Raises ValueError naming what is none."""
    network = ipaddress.ip_network(text.strip(), strict=False)
    return str(network[0] if network.num_addresses == 1 else network)


def is_within(address: str, networks: list[str]) -> bool:
    """Whether an address lies in one of these networks; one that cannot be read lies in none."""
    wanted = as_hex(address)
    ranges = (pair.split("-") for pair in as_ranges(networks).split(","))
    return bool(wanted) and any(low <= wanted <= high for low, high in ranges)


def _range(text: str) -> str:
    network = ipaddress.ip_network(text.strip(), strict=False)
    return f"{_number(network[0]):032x}-{_number(network[-1]):032x}"


def _number(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> int:
    return int(address) + (0xFFFF << 32) if address.version == 4 else int(address)
