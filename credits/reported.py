"""What a request reports of itself for the usage log."""

from dataclasses import dataclass, replace

import orjson

QUERY_TEXT_MAX = 2048


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request was. `query` is its compact JSON text, kept up to 2 KB."""

    request_id: str
    endpoint: str
    status: int
    rows: int
    duration_ms: int
    query: str = ""

    def cut(self) -> "Usage":
        """The same with a `query` that is short enough to keep."""
        return self if len(self.query) <= QUERY_TEXT_MAX else replace(self, query=self.query[:QUERY_TEXT_MAX])

    def as_json(self) -> str:
        """Compact, as it stands in the journal."""
        return orjson.dumps(self.cut()).decode()
