"""Names written "Last, First": what is one and what only has a comma. Pure; `re` and Polars read the patterns alike."""

import re
from collections.abc import Sequence

# One comma, nothing in brackets, no figures after it: "T/T (Paris, France)" and "Doe, born 1950" are no inversions.
INVERTED = r"^([^,()\[\];]+), *([^,()\[\]\d;]+)$"
TURNED = "${2} ${1}"

_LEGAL_FORMS = (
    r"inc|incorporated|llc|llp|ltd|limited|gmbh|corp|corporation|co|plc|ag|kg|bv|nv|pty|s\.?a|s\.?r\.?l|s\.?p\.?a"
)
_SUFFIXES = r"jr|sr|junior|senior|i|ii|iii|iv|m\.?d|ph\.?d|esq|bt|om|ch|cbe|obe|mbe|ra|pra|dds|cpa|rn"
_TITLES = r"sir|lord|lady|dame|dr|mr|mrs|ms|miss|prof|professor|rev|reverend|hon"
_TITLES_ALONE = r"sir|dame|dr|mr|mrs|ms|prof|professor|rev|reverend"  # Lord and Lady are last names, too
_BODIES = (
    r"company|group|school|university|college|museum|foundation|institute|department|ministry|studio|studios|associates"
    r"|association|partners|brothers|bros|society|committee|council|agency|services|holdings"
)
NOT_INVERTED = (
    rf",\s*(?i:{_LEGAL_FORMS}|{_SUFFIXES}|{_TITLES})\.?$"  # what follows is no first name
    r"|,\s*(?:the|of|and|born|formerly|attributed|after)\s"
    rf"|^(?i:{_TITLES_ALONE})\.?\s*,"  # what comes before is no last name
    rf"|^[^,]*(?i:&|\+|\s(?:and|und|et|y)\s|\b(?:{_LEGAL_FORMS}|{_BODIES})\b)[^,]*,"
)

_INVERTED = re.compile(INVERTED)
_NOT_INVERTED = re.compile(NOT_INVERTED)
SHARE_MIN = 0.5
# A column of "Springfield, Illinois" has few different endings; one of people's names has many.
ENDINGS_FEW, ENDINGS_SEEN_MIN = 0.05, 40


def written_last_first(values: Sequence[str], *, not_names: frozenset[str]) -> bool:
    """Whether a column of names is written "Last, First": most of its values are, and their endings read like first names.

    `not_names`: endings that say that the values are places ("Springfield, IL").
    """
    endings = [
        match[2]
        for value in values
        if (match := _INVERTED.fullmatch(value)) is not None and _NOT_INVERTED.search(value) is None
    ]
    if len(endings) <= SHARE_MIN * len(values):
        return False
    if sum(ending in not_names for ending in endings) > SHARE_MIN * len(endings):
        return False
    return len(endings) < ENDINGS_SEEN_MIN or len(set(endings)) > ENDINGS_FEW * len(endings)
