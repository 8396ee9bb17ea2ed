"""Where settings come from: the process environment first, then `.env`, then `.local/env`.

`.local/env` is what the embedded engines write down about themselves, so that every `manage.py` command
finds them without a word. `IGNORE_ENV_FILES=1` reads the process environment alone (tests, containers).
"""

import os
from pathlib import Path

import environ
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()
if os.environ.get("IGNORE_ENV_FILES") != "1":
    for env_file in (BASE_DIR / ".env", BASE_DIR / ".local" / "env"):
        if env_file.is_file():
            env.read_env(str(env_file), overwrite=False)

DEBUG: bool = env.bool("DEBUG", default=False)

# Values that a reader of the documentation could know: never accepted outside DEBUG.
PUBLISHED_SECRETS = frozenset({"", "local-admin", "changeme", "change-me", "secret", "insecure"})
SECRET_LENGTH_MIN = 16


def secret(name: str) -> str:
    """The secret called `name`; outside DEBUG a missing, short or published value stops the start."""
    value: str = env.str(name, default="")
    if DEBUG:
        return value or f"insecure-{name.lower()}-for-debug-only"
    if value in PUBLISHED_SECRETS or len(value) < SECRET_LENGTH_MIN:
        raise ImproperlyConfigured(
            f"{name} is not set, is shorter than {SECRET_LENGTH_MIN} characters or is a default that anybody can read. "
            f"Set {name} to a random value of your own, e.g. the output of "
            "`python -c 'import secrets; print(secrets.token_urlsafe(32))'`."
        )
    return value
