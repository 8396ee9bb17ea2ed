"""What the documents say can be done can be done: links, make targets, commands with their options, and every curl."""

import json
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand
from django.test import Client

from credits import webhooks
from tests.factories import make_customer
from tests.search.conftest import insert_records

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    path for folder in (ROOT, ROOT / "docs", ROOT / "credits", ROOT / "benchmarks") for path in folder.glob("*.md")
)
_LINK = re.compile(r"\[[^\]]+\]\(([^)#:]+)\)")
_BLOCK = re.compile(r"^( *)```sh\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_ERROR_CODE = re.compile(r"`([A-Z]+(?:_[A-Z]+)+)`")


def _commands(document: Path) -> list[list[str]]:
    """The words of every command in the document's shell blocks; continued lines are joined, comments are not words."""
    found = []
    for indent, block in _BLOCK.findall(document.read_text()):
        text = "\n".join(line.removeprefix(indent) for line in block.splitlines()).replace("\\\n", " ")
        words: list[str] = []
        for line in re.split(r"\n(?=(?:[^']*'[^']*')*[^']*$)", text):
            words = shlex.split(line, comments=True)
            if words:
                found.append(words)
    return found


def _every_command() -> list[list[str]]:
    return [words for document in DOCUMENTS for words in _commands(document)]


def _manage_calls() -> list[list[str]]:
    return [
        words[words.index("manage.py") + 1 :]
        for words in _every_command()
        if "manage.py" in words and "curl" not in words
    ]


def _curls() -> list[list[str]]:
    return [words for words in _every_command() if words[0] == "curl"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_to_one(document: Path) -> None:
    broken = [link for link in _LINK.findall(document.read_text()) if not (document.parent / link).exists()]
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_named_file_exists(document: Path) -> None:
    named = {
        code
        for code in _CODE.findall(document.read_text())
        if re.fullmatch(
            r"(accounts|config|credits|docs|embedded|ingestion|search|templates|tests|benchmarks)/[\w./]*", code
        )
    }
    made_by_running = {"benchmarks/results.md"}
    assert {code for code in named - made_by_running if not (ROOT / code).exists()} == set()


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    codes = [code for document in DOCUMENTS for code in _CODE.findall(document.read_text())]
    named = {words[words.index("make") + 1] for words in _every_command() if "make" in words}
    named |= {
        match[1] for code in codes if (match := re.fullmatch(r"(?:[A-Z_]+=\S+ )*make ([a-z][a-z-]*)( .*)?", code))
    }
    assert {"demo", "up", "test", "check", "bench"} <= named <= targets


def test_the_documents_call_manage_py() -> None:
    assert {call[0] for call in _manage_calls()} >= {
        "create_customer", "create_key", "create_operator", "drain", "ingest", "migrate", "migrate_clickhouse", "revoke_key",
        "top_up", "verify_ledger",
    }  # fmt: skip


@pytest.mark.parametrize("call", _manage_calls(), ids=" ".join)
def test_every_documented_option_is_one(call: list[str]) -> None:
    name, *arguments = call
    owner = get_commands()[name]
    command = owner if isinstance(owner, BaseCommand) else load_command_class(owner, name)
    parser = command.create_parser("manage.py", name)
    assert vars(parser.parse_args(arguments))


@pytest.mark.parametrize("words", _curls(), ids=lambda words: words[-1][:60])
def test_every_documented_curl_succeeds(words: list[str], stores: None, settings: LazySettings) -> None:
    settings.METRICS_TOKEN = "the token of a document"
    customer = make_customer(credits=100)
    insert_records([{"user_id": "54a4f3f67468693b8cd7b470", "name": "Acme", "country": "USA"}])
    variables = {
        "$BASE_URL": "",
        "$DEMO_API_KEY": customer.api_key,
        "$ADMIN_SECRET": settings.ADMIN_SECRET,
        "$METRICS_TOKEN": settings.METRICS_TOKEN,
        '"user_id": 1,': f'"user_id": {customer.number},',
        "inv-2032": customer.key_id,
        "https://hooks.example.com/": "https://8.8.8.8/",  # no name is resolved in a test
        "00001k3v9x2ab": customer.key_id,
    }
    for name, value in variables.items():
        words = [word.replace(name, value) for word in words]
    headers = {}
    method, body, address = "", None, ""
    rest = iter(words[1:])
    for word in rest:
        match word:
            case "-s" | "-i":
                pass
            case "-H":
                header, _, value = next(rest).partition(": ")
                headers[header] = value
            case "-X":
                method = next(rest)
            case "-d":
                body = next(rest)
                method = method or "POST"
            case ">":
                next(rest)
            case _:
                address = word
    answer = Client().generic(
        method or "GET",
        address,
        body or "",
        content_type=headers.pop("Content-Type", "application/json"),
        headers=headers,
    )
    assert answer.status_code == 200, answer.content
    if answer["Content-Type"] == "application/json":
        assert json.loads(answer.content)


def test_every_documented_error_code_is_one_of_ours() -> None:
    table = (ROOT / "docs" / "customers.md").read_text().partition("| status | code |")[2]
    sources = "".join(
        path.read_text() for app in ("config", "credits", "search", "accounts") for path in (ROOT / app).rglob("*.py")
    )
    codes = set(_ERROR_CODE.findall(table))
    assert len(codes) == 21
    assert {code for code in codes if f'"{code}"' not in sources} == set()


def test_the_documented_check_of_a_signature_tells_genuine_from_forged() -> None:
    (snippet,) = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "docs" / "customers.md").read_text(), re.MULTILINE | re.DOTALL
    )
    shown: dict[str, Callable[[str, dict[str, str], bytes], bool]] = {}
    exec(snippet, shown)  # noqa: S102 - our own document
    now = int(time.time())

    def headers(*salts: str, timestamp: int = now, event: str = "evt_1") -> dict[str, str]:
        signed = webhooks.signature(salts=salts, event_id=event, timestamp=timestamp, body=b"{}")
        return {"webhook-id": "evt_1", "webhook-timestamp": str(timestamp), "webhook-signature": signed}

    secret = webhooks.secret_of("aa")
    verdicts = [
        shown["is_genuine"](secret, headers("aa"), b"{}"),
        shown["is_genuine"](secret, headers("bb", "aa"), b"{}"),
        shown["is_genuine"](secret, headers("bb"), b"{}"),
        shown["is_genuine"](secret, headers("aa"), b"{ }"),
        shown["is_genuine"](secret, headers("aa", event="evt_2"), b"{}"),
        shown["is_genuine"](secret, headers("aa", timestamp=now - 301), b"{}"),
    ]
    assert verdicts == [True, True, False, False, False, False]
