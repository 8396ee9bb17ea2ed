"""`.local/env`: what the installation is, ready to `source`. Secrets in it are made once and kept."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from embedded.errors import EmbeddedError
from embedded.processes import write_atomically

ENGINE_URLS = ("DATABASE_URL", "REDIS_URL", "CACHE_URL", "CELERY_BROKER_URL", "CLICKHOUSE_URL")
SECRETS = ("SECRET_KEY", "KEY_PEPPER", "ADMIN_SECRET", "OPERATOR_PASSWORD", "METRICS_TOKEN")
OPERATOR_EMAIL = "operator@localhost.localdomain"
_LINE = re.compile(r"(?:export\s+)?(?P<name>[A-Z][A-Z0-9_]*)=(?P<quote>['\"]?)(?P<value>.*)(?P=quote)\s*")


def read(path: Path) -> dict[str, str]:
    """The assignments of an env file; {} when there is none."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    matches = (_LINE.fullmatch(line.strip()) for line in lines)
    return {match["name"]: match["value"] for match in matches if match is not None}


def write(path: Path, values: Mapping[str, str]) -> None:
    """Write the file whole, readable by its owner alone."""
    for name, value in values.items():
        if "'" in value or "\n" in value:
            raise EmbeddedError(f"{name} may have no quote and no line break.")
    text = "".join(f"export {name}='{value}'\n" for name, value in values.items())
    write_atomically(path, "# Written by the embedded stack. Use it by: source .local/env\n" + text, mode=0o600)


def with_secrets(values: Mapping[str, str]) -> dict[str, str]:
    """The values with every secret there: the user's own where the environment has one, else made at random and kept."""
    made = {name: os.environ.get(name) or values.get(name) or secrets.token_urlsafe(32) for name in SECRETS}
    return {"OPERATOR_EMAIL": OPERATOR_EMAIL, **values, **made}


def given_urls(root: Path, own: Path) -> dict[str, str]:
    """Engine URLs that the user has set, in the environment or in `.env`: those engines are not started here.

    A shell that has sourced `.local/env` carries this stack's own URLs; `own` remembers them, so that they do not count.
    """
    ours = set(json.loads(own.read_text())) if own.exists() else set()
    found = {**read(root / ".env"), **os.environ}
    return {name: found[name] for name in ENGINE_URLS if found.get(name) and found[name] not in ours}


def remember_own(own: Path, urls: Mapping[str, str]) -> None:
    """Add these to the URLs known as this stack's own."""
    known = set(json.loads(own.read_text())) if own.exists() else set()
    if not known.issuperset(urls.values()):
        write_atomically(own, json.dumps(sorted(known | set(urls.values())), indent=1) + "\n")
