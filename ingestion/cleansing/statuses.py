"""The words for a record's status to one vocabulary. Pure."""

STATUSES = ("active", "pending", "inactive", "suspended", "closed")

_SYNONYMS = {
    "active": "enabled live current open valid verified subscribed ok yes true registered",
    "pending": "new awaiting waiting unverified unconfirmed processing in_progress in_review invited trial on_hold",
    "inactive": "disabled dormant expired lapsed unsubscribed idle passive no false",
    "suspended": "blocked banned locked frozen paused",
    "closed": "cancelled canceled terminated deleted archived removed churned ended",
}
BY_WORD = {status: status for status in STATUSES} | {
    word: status for status, words in _SYNONYMS.items() for word in words.split()
}


def canonical(text: str) -> str | None:
    """The status that a word stands for, None when it stands for none."""
    return BY_WORD.get("_".join(text.lower().replace("-", " ").replace("_", " ").split()))
