import csv
import io
from typing import Any

import pytest
from django.test import Client

from config.clickhouse.client import StoreUnavailable
from config.errors import DomainError
from credits import counters, drain
from credits.services import spendable
from search import downloads
from tests.factories import Customer, make_customer
from tests.search.conftest import Cutter, insert_records

People = list[dict[str, Any]]
ADDRESSES = pytest.mark.parametrize("address", ["/api/v1/download", "/download"])


def download(api: Client, customer: Customer, **parameters: str) -> Any:
    return api.get("/download", parameters, headers={"x-api-key": customer.api_key})


def rows(text: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text.decode(), newline="")))


def held(customer: Customer) -> int:
    return counters.inspect(customer.number).held


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of a few KB already need several chunks."""
    monkeypatch.setattr(downloads, "CHUNK_BYTES", 4_096)


@pytest.fixture
def many(stores: None, word: str) -> None:
    """500 records of about 150 bytes of CSV each."""
    insert_records([{"user_id": f"{number:04d}", "city": word, "name": f'"{number}"\n,'} for number in range(500)])


@ADDRESSES
def test_download_is_a_csv_file(api: Client, alice: Customer, people: People, word: str, address: str) -> None:
    response = api.get(address, {"q": f"{word} Ann"}, headers={"x-api-key": alice.api_key})
    assert response.status_code == 200
    assert response["Content-Type"] == "text/csv; charset=utf-8; header=present"
    assert response["Content-Disposition"] == f'attachment; filename="meterhouse-{word}-ann.csv"'
    assert rows(response.content) == [
        {
            "id": str(people[0]["id"]),
            "user_id": f"Ann-{word}",
            "email": f"ann@{word}.example",
            "name": 'Ann "A" Müller',
            "phone": "+12025550101",
            "address": "",
            "city": word,
            "country": "USA",
            "created_date": "2024-01-05",
            "status": "active",
            "metadata": '{"note":"a/b","zip":"02458"}',
            "data_quality_score": "0.9",
            "validation_errors": "phone",
            "source_file": "people.csv",
            "ingested_at": "2026-01-02T03:04:05.678Z",
        }
    ]


def test_download_of_a_few_rows_costs_one_credit(api: Client, alice: Customer, people: People, word: str) -> None:
    response = download(api, alice, q=word, limit="5")
    assert (response["X-Credits-Used"], response["X-Credits-Remaining"]) == ("1", "999")
    assert (spendable(alice.account), held(alice)) == (999, 0)


def test_download_without_a_match_is_a_header_line_for_one_credit(api: Client, alice: Customer, word: str) -> None:
    response = download(api, alice, q=word)
    assert response.content.count(b"\n") == 1
    assert response["X-Credits-Used"] == "1"


def test_download_leaves_missing_dates_empty(api: Client, alice: Customer, people: People, word: str) -> None:
    assert rows(download(api, alice, q=f"{word} cid").content)[0]["created_date"] == ""


def test_download_respects_its_limit(api: Client, alice: Customer, many: None, word: str) -> None:
    assert len(rows(download(api, alice, q=word, limit="120").content)) == 120
    assert spendable(alice.account) == 998


def test_download_of_many_chunks_charges_for_its_rows(
    api: Client, alice: Customer, many: None, word: str, small_chunks: None
) -> None:
    response = download(api, alice, q=word)
    assert response["X-Credits-Reserved"] == "11"
    assert int(response["X-Credits-Used"]) <= 6
    text = b"".join(response.streaming_content)
    response.close()
    assert sorted(row["name"] for row in rows(text)) == sorted(f'"{number}"\n,' for number in range(500))
    assert (spendable(alice.account), held(alice)) == (994, 0)


def test_every_chunk_is_paid_before_it_leaves_and_ends_at_a_row(
    api: Client, alice: Customer, many: None, word: str, small_chunks: None
) -> None:
    delivered = b""
    response = download(api, alice, q=word)
    chunks = 0
    for chunk in response.streaming_content:
        delivered += chunk
        chunks += 1
        paid = 1_000 - spendable(alice.account) - held(alice)
        assert paid == 1 + len(rows(delivered)) // 100
    response.close()
    assert chunks > 5


def test_a_broken_download_sent_again_is_charged_its_greatest_total_once(
    api: Client, alice: Customer, many: None, word: str, small_chunks: None
) -> None:
    headers = {"x-api-key": alice.api_key, "Idempotency-Key": "order-1"}
    broken: Any = api.get("/download", {"q": word}, headers=headers)
    next(iter(broken.streaming_content))
    broken.close()
    whole: Any = api.get("/download", {"q": word}, headers=headers)
    assert len(rows(b"".join(whole.streaming_content))) == 500
    whole.close()
    drain.drain_once()
    assert (spendable(alice.account), held(alice)) == (994, 0)


@pytest.mark.parametrize("chunks", [0, 1, 3])
def test_a_client_that_goes_away_pays_for_what_it_was_sent(
    api: Client, alice: Customer, many: None, word: str, small_chunks: None, chunks: int
) -> None:
    response = download(api, alice, q=word)
    stream = iter(response.streaming_content)
    delivered = b"".join(next(stream) for _ in range(chunks))
    response.close()
    paid = 1_000 - spendable(alice.account)
    sent = len(rows(delivered))
    # The first chunk is paid when the headers leave; of the others only those that were asked for.
    assert 1 + sent // 100 <= paid <= 1 + (sent + 100) // 100
    assert held(alice) == 0


def test_a_download_that_was_closed_twice_is_paid_once(
    api: Client, alice: Customer, many: None, word: str, small_chunks: None
) -> None:
    response = download(api, alice, q=word)
    response.close()
    before = spendable(alice.account)
    response.close()
    assert spendable(alice.account) == before


def test_a_store_that_fails_in_the_middle_leaves_what_was_delivered_paid(
    api: Client, alice: Customer, many: None, word: str, small_chunks: None, cutter: Cutter
) -> None:
    assert download(api, alice, q="nobody").status_code == 200
    cutter.cut_after = 40_000
    response = download(api, alice, q=word)
    delivered, failure = read_until_failure(response)
    response.close()
    assert isinstance(failure, StoreUnavailable)
    assert 0 < len(rows(delivered)) < 500
    assert (999 - spendable(alice.account), held(alice)) == (1 + len(rows(delivered)) // 100, 0)


def read_until_failure(response: Any) -> tuple[bytes, Exception | None]:
    delivered = b""
    try:
        for chunk in response.streaming_content:
            delivered += chunk
    except DomainError as failure:
        return delivered, failure
    return delivered, None


def test_a_store_that_cannot_be_reached_is_an_error_and_free(
    api: Client, alice: Customer, clickhouse_away: None
) -> None:
    response = download(api, alice, q="a")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert response["Retry-After"] == "2"
    assert (response["X-Credits-Used"], spendable(alice.account), held(alice)) == ("0", 1_000, 0)


def test_download_needs_credits_for_its_limit(api: Client, stores: None) -> None:
    response = download(api, make_customer(credits=10), q="a")
    assert response.status_code == 402
    assert response.json()["error"]["details"] == {"required": 11, "available": 10, "limit_source": "account"}


def test_download_refuses_more_than_a_million(api: Client, alice: Customer) -> None:
    response = download(api, alice, q="a", limit="1000001")
    assert response.status_code == 400
    assert response.json()["error"]["details"] == {"limit": "must be from 1 to 1,000,000"}
