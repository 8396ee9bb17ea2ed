"""Behind a proxy that ends TLS: who may say that the caller came by HTTPS."""

import pytest
from django.test import Client, override_settings

PROXY = "203.0.113.7"


@pytest.mark.parametrize(
    ("peer", "said", "status"),
    [
        (PROXY, "https", 401),
        (PROXY, "http, HTTPS", 401),  # the last word is the own proxy's
        (PROXY, "https, http", 301),
        (PROXY, "http", 301),
        (PROXY, "", 301),
        ("198.51.100.1", "https", 301),
    ],
)
def test_only_a_trusted_proxy_says_that_tls_was_ended(peer: str, said: str, status: int) -> None:
    with override_settings(SECURE_SSL_REDIRECT=True, TRUSTED_PROXIES=["203.0.113.0/24"]):
        answer = Client().get("/api/v1/fields", REMOTE_ADDR=peer, headers={"X-Forwarded-Proto": said})
    assert answer.status_code == status  # 401: the request has arrived, without a key
