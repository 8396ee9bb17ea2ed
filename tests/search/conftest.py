"""Records that a test may search: each test marks its own by a word that no other test uses."""

import uuid
from datetime import UTC, date, datetime
from typing import Any

import pytest
from django.test import Client

from config.clickhouse.client import writer
from tests.factories import Customer, make_customer

_DEFAULTS: dict[str, Any] = {
    "source_file": "people.csv",
    "ingested_at": datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
    "user_id": "",
    "email": "",
    "name": "",
    "phone": "",
    "address": "",
    "city": "",
    "country": "",
    "created_date": None,
    "status": "",
    "metadata": "{}",
    "data_quality_score": 0.5,
    "validation_errors": [],
}


def insert_records(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Puts rows into `records`, with defaults for what they leave out; returns them whole."""
    job = uuid.uuid4()
    whole = [{"id": uuid.uuid4(), "job_id": job, **_DEFAULTS, **row} for row in rows]
    columns = list(whole[0])
    writer().insert("records", [[row[name] for name in columns] for row in whole], column_names=columns)
    return whole


@pytest.fixture
def word() -> str:
    """A word that only this test's records hold."""
    return f"w{uuid.uuid4().hex}"


@pytest.fixture
def people(stores: None, word: str) -> list[dict[str, Any]]:
    """Three people whose city is the test's word: Ann (2024-01-05, active), Bob (2024-03-01, pending), Cid (no date)."""
    return insert_records(
        [
            {
                "user_id": f"Ann-{word}",
                "email": f"ann@{word}.example",
                "name": 'Ann "A" Müller',
                "phone": "+12025550101",
                "city": word,
                "country": "USA",
                "created_date": date(2024, 1, 5),
                "status": "active",
                "metadata": '{"note":"a/b","zip":"02458"}',
                "data_quality_score": 0.9,
                "validation_errors": ["phone"],
            },
            {
                "user_id": f"bob-{word}",
                "name": "Bob\nNewline",
                "city": word,
                "country": "GBR",
                "created_date": date(2024, 3, 1),
                "status": "pending",
                "metadata": '{"address":{"zip":"1"},"flat.zip":"2"}',
            },
            {"user_id": f"cid-{word}", "name": "Cid, Jr.", "city": word, "country": "USA", "status": "closed"},
        ]
    )


@pytest.fixture
def alice(stores: None) -> Customer:
    """A customer with 1,000 credits and a key without a rate limit."""
    return make_customer(credits=1_000)


@pytest.fixture
def api(stores: None) -> Client:
    """Django's test client; a defect in a view is raised, not answered."""
    return Client()
