"""What the embedded stack says when it cannot go on."""

from __future__ import annotations


class EmbeddedError(Exception):
    """A problem the user can act on; its text is shown as it is, without a traceback."""
