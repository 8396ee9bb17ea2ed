"""The form of an API key, without any store: `mh_live_<id>_<secret><crc>`.

- `mh_live_`: the brand prefix that secret scanners match.
- `<id>`: public and indexed; 5 characters of the customer number, so that a key alone names its account's partition and
  every Redis key of a call can be declared without a look-up, and 8 random ones.
- `<secret>`: 22 random characters of base 62, 130 bits.
- `<crc>`: CRC-32 of all before it in 6 characters of base 62; a typo or a guess is refused without any store.

What is stored is HMAC-SHA256(pepper, whole key). An observer of timings cannot steer the digest without the pepper, so
equality of digests may be decided by an ordinary comparison (the "double HMAC" form of a constant-time compare).
"""

import hmac
import re
import secrets
import zlib
from dataclasses import dataclass

BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no i, l, o, u
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PREFIX = "mh_live_"
NUMBER_LENGTH = 5
RANDOM_ID_LENGTH = 8
SECRET_LENGTH = 22
CRC_LENGTH = 6
NUMBER_MAX = 32**NUMBER_LENGTH - 1

_KEY = re.compile(
    rf"{PREFIX}([{BASE32}]{{{NUMBER_LENGTH + RANDOM_ID_LENGTH}}})_[{BASE62}]{{{SECRET_LENGTH}}}[{BASE62}]{{{CRC_LENGTH}}}"
)


@dataclass(frozen=True, slots=True)
class PresentedKey:
    """A well-formed key somebody presented: its public id, its account's number, the digest to compare."""

    public_id: str
    account_number: int
    digest: str


def _encode(number: int, alphabet: str, length: int) -> str:
    digits = []
    for _ in range(length):
        number, remainder = divmod(number, len(alphabet))
        digits.append(alphabet[remainder])
    return "".join(reversed(digits))


def _crc(text: str) -> str:
    return _encode(zlib.crc32(text.encode("ascii")), BASE62, CRC_LENGTH)


def account_number_of(public_id: str) -> int:
    """The customer number inside a public key id; raises ValueError for characters outside the alphabet."""
    number = 0
    for character in public_id[:NUMBER_LENGTH]:
        number = number * 32 + BASE32.index(character)
    return number


def generate(*, account_number: int) -> str:
    """A new whole key for that account; raises ValueError when the number does not fit into a key."""
    if not 1 <= account_number <= NUMBER_MAX:
        raise ValueError(f"customer numbers in keys go from 1 to {NUMBER_MAX}, not {account_number}")
    public_id = _encode(account_number, BASE32, NUMBER_LENGTH) + "".join(
        secrets.choice(BASE32) for _ in range(RANDOM_ID_LENGTH)
    )
    body = f"{PREFIX}{public_id}_" + "".join(secrets.choice(BASE62) for _ in range(SECRET_LENGTH))
    return body + _crc(body)


def parse(api_key: str, *, pepper: str) -> PresentedKey | None:
    """What a presented key says of itself, or None when its form or its CRC is wrong."""
    match = _KEY.fullmatch(api_key)
    if match is None or _crc(api_key[:-CRC_LENGTH]) != api_key[-CRC_LENGTH:]:
        return None
    public_id = match[1]
    return PresentedKey(public_id, account_number_of(public_id), digest(api_key, pepper=pepper))


def digest(api_key: str, *, pepper: str) -> str:
    """HMAC-SHA256 of the whole key under the pepper, 64 hexadecimal digits."""
    return hmac.digest(pepper.encode(), api_key.encode("ascii"), "sha256").hex()
