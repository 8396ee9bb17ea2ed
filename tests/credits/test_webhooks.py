"""A signed request on its way: what arrives, what is refused, and how long a bad receiver is waited for."""

import base64
import hashlib
import hmac
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import override_settings

from credits import webhooks
from credits.webhook_addresses import WebhookAddressRefused
from tests.credits.receiver import DRIPS, NAME, Received, Receiver, loopback, receiving, trusting_receiver

BODY = b'{"id": "evt_1", "text": "caf\xc3\xa9"}'
SALT, OLD_SALT = "5a" * 16, "0d" * 16


@pytest.fixture(autouse=True)
def allowed() -> Iterator[None]:
    with override_settings(ALERT_WEBHOOK_ALLOWED_NETWORKS=["127.0.0.0/8"], ALERT_WEBHOOK_ALLOW_HTTP=True):
        yield


def send(receiver: Receiver, **changes: Any) -> int:
    call: dict[str, Any] = {
        "url": receiver.url,
        "salts": [SALT],
        "event_id": "evt_1",
        "body": BODY,
        "timestamp": 1_700_000_000,
        "resolver": loopback,
        "tls": trusting_receiver(),
        **changes,
    }
    return webhooks.send(**call).status


def is_signed(received: Received, secret: str) -> bool:
    """As the specification says it, with nothing of the product."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{received.headers['webhook-id']}.{received.headers['webhook-timestamp']}.".encode() + received.body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return f"v1,{expected}" in received.headers["webhook-signature"].split(" ")


def test_a_secret_is_32_bytes_that_the_salt_alone_does_not_give() -> None:
    secret = webhooks.secret_of(SALT)
    with override_settings(KEY_PEPPER="another pepper of the tests"):
        elsewhere = webhooks.secret_of(SALT)
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    assert elsewhere != secret


def test_new_salts_differ() -> None:
    assert len({webhooks.new_salt() for _ in range(100)}) == 100


@pytest.mark.parametrize("tls", [False, True])
def test_a_request_arrives_signed_at_the_path(tls: bool) -> None:
    with receiving(tls=tls) as receiver:
        assert send(receiver) == 200
    (received,) = receiver.received
    assert (received.path, received.body) == ("/credits?tenant=7", BODY)
    assert received.headers["host"] == f"{NAME}:{receiver.port}"
    assert (received.headers["webhook-id"], received.headers["webhook-timestamp"]) == ("evt_1", "1700000000")
    assert received.headers["content-type"] == "application/json"
    assert is_signed(received, webhooks.secret_of(SALT))


def test_two_valid_secrets_sign_both() -> None:
    with receiving() as receiver:
        send(receiver, salts=[SALT, OLD_SALT])
    (received,) = receiver.received
    assert [is_signed(received, webhooks.secret_of(salt)) for salt in (SALT, OLD_SALT, "77" * 16)] == [
        True,
        True,
        False,
    ]


def test_a_certificate_of_nobody_we_know_is_refused() -> None:
    with receiving(tls=True) as receiver, pytest.raises(webhooks.WebhookFailed, match="certificate is not valid"):
        send(receiver, tls=ssl.create_default_context())
    assert receiver.received == []


def test_a_certificate_of_another_host_is_refused() -> None:
    with (
        receiving(tls=True) as receiver,
        pytest.raises(webhooks.WebhookFailed, match=r"not valid for other\.example\.com"),
    ):
        send(receiver, url=receiver.url.replace(NAME, "other.example.com"))
    assert receiver.received == []


@pytest.mark.parametrize("status", [300, 301, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with receiving() as elsewhere, receiving() as receiver:
        receiver.statuses, receiver.location = [status], elsewhere.url
        with pytest.raises(webhooks.WebhookFailed, match="redirects are not followed") as failed:
            send(receiver)
    assert (failed.value.status, len(receiver.received), elsewhere.received) == (status, 1, [])


@pytest.mark.parametrize("status", [400, 404, 410, 500, 503])
def test_another_answer_than_2xx_is_a_failure(status: int) -> None:
    with receiving() as receiver:
        receiver.statuses = [status]
        with pytest.raises(webhooks.WebhookFailed, match=f"answered {status}") as failed:
            send(receiver)
    assert failed.value.status == status


def test_a_receiver_that_does_not_answer_is_left_at_the_deadline() -> None:
    with receiving() as receiver:
        receiver.delay_s = 60
        with pytest.raises(webhooks.WebhookFailed, match=r"no answer within 0\.2 s"):
            send(receiver, timeout_s=0.2)


def test_a_receiver_that_answers_byte_by_byte_is_left_at_the_deadline() -> None:
    with receiving() as receiver:
        receiver.drip = True
        with pytest.raises(webhooks.WebhookFailed, match=r"no answer within 0\.3 s"):
            send(receiver, timeout_s=0.3)
        assert 0 < receiver.dripped < DRIPS


def test_a_receiver_that_never_greets_is_left_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        receiver = Receiver(port=silent.getsockname()[1], scheme="https")
        with pytest.raises(webhooks.WebhookFailed, match=r"no answer within 0\.2 s"):
            send(receiver, timeout_s=0.2)


def test_a_closed_port_is_a_failure() -> None:
    with receiving() as receiver:
        pass
    with pytest.raises(webhooks.WebhookFailed, match="the connection failed: ConnectionRefusedError"):
        send(receiver)


def test_the_next_address_is_tried_when_the_first_takes_no_connection() -> None:
    with receiving() as receiver:
        status = send(receiver, resolver=lambda host, port: ["127.0.0.77", "127.0.0.1"])
    assert (status, len(receiver.received)) == (200, 1)


def test_an_address_inside_is_refused_before_anything_is_sent() -> None:
    with (
        receiving() as receiver,
        override_settings(ALERT_WEBHOOK_ALLOWED_NETWORKS=[]),
        pytest.raises(WebhookAddressRefused, match="not public"),
    ):
        send(receiver)
    assert receiver.received == []


def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    answers = iter([["127.0.0.1"], ["127.0.0.77"]])  # asked twice, it would be sent elsewhere
    with receiving() as receiver:
        status = send(receiver, resolver=lambda host, port: next(answers))
    assert (status, len(receiver.received)) == (200, 1)


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy, receiving() as receiver:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        send(receiver)
    assert (len(receiver.received), proxy.received) == (1, [])
