"""Where webhooks may go: hostile addresses in every spelling, and names that change what they resolve to."""

from collections.abc import Sequence

import pytest
from django.test import override_settings

from credits import webhook_addresses
from credits.webhook_addresses import NameUnresolved, WebhookAddressRefused, may_connect, parse, public_addresses

PUBLIC = "203.0.114.9"


def public(host: str, port: int) -> list[str]:
    return [PUBLIC]


NOT_PUBLIC = [
    "0.0.0.0",  # noqa: S104 - an address to refuse
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.7",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:a9fe:a9fe",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:0a00:0001::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1%eth0",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert may_connect(address) is False


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", PUBLIC, "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_a_public_address_is_allowed(address: str) -> None:
    assert may_connect(address) is True


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_a_name_that_resolves_to_one_is_refused(address: str) -> None:
    with pytest.raises(WebhookAddressRefused, match="not public"):
        public_addresses(parse("https://hooks.example.com/"), resolver=lambda host, port: [address])


def test_one_private_address_among_public_ones_is_refused() -> None:
    with pytest.raises(WebhookAddressRefused, match="not public"):
        public_addresses(parse("https://hooks.example.com/"), resolver=lambda host, port: [PUBLIC, "10.0.0.1"])


@pytest.mark.parametrize("address", [text for text in NOT_PUBLIC if "%" not in text])
def test_an_address_in_the_url_is_refused_though_nothing_is_resolved(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(WebhookAddressRefused, match="not public"):
        public_addresses(parse(f"https://{host}/"), resolver=public)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.com",
        "//hooks.example.com/",
        "http://hooks.example.com/",
        "ftp://hooks.example.com/",
        "file:///etc/passwd",
        "gopher://hooks.example.com/",
        "javascript:alert(1)",
        "https://",
        "https:///path",
        "https://user@hooks.example.com/",
        "https://user:password@hooks.example.com/",
        "https://hooks.example.com@127.0.0.1/",
        "https://127.0.0.1\\@hooks.example.com/",
        "https://hooks.example.com/#fragment",
        "https://hooks.example.com#@127.0.0.1/",
        "https://hooks.example.com:22/",
        "https://hooks.example.com:0/",
        "https://hooks.example.com:65536/",
        "https://hooks.example.com:x/",
        "https://localhost/",
        "https://localhost./",
        "https://redis/",
        "https://printer.local/",
        "https://metadata.google.internal/",
        "https://a.localhost/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://127.0.0.01/",
        "https://1.2.3.4.5/",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://[::ffff:127.0.0.1",
        "https://hooks.example.com /",
        "https://hooks.example.com/\r\nX-Injected: 1",
        "https://hooks.example.com/\x00",
        "https://hööks.example.com/",
        "https://①②⑦.⓪.⓪.①/",
        "https://hooks%2eexample.com/",
        "https://-hooks.example.com/",
        "https://hooks..example.com/",
        f"https://hooks.example.com/{'a' * 2000}",
        f"https://{'a' * 64}.example.com/",
    ],
)
def test_a_url_of_another_form_is_refused_by_itself(url: str) -> None:
    with pytest.raises(WebhookAddressRefused) as refused:
        public_addresses(parse(url), resolver=public)
    assert (refused.value.status, refused.value.code) == (400, "WEBHOOK_ADDRESS_REFUSED")
    assert list(refused.value.details) == ["webhook_url"]


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "header"),
    [
        ("https://hooks.example.com", "hooks.example.com", 443, "/", "hooks.example.com"),
        ("https://Hooks.Example.COM./a?b=c", "hooks.example.com", 443, "/a?b=c", "hooks.example.com"),
        ("https://hooks.example.com:8443/a", "hooks.example.com", 8443, "/a", "hooks.example.com:8443"),
        ("https://xn--hks-1qa.example.com/", "xn--hks-1qa.example.com", 443, "/", "xn--hks-1qa.example.com"),
        ("https://8.8.8.8/a", "8.8.8.8", 443, "/a", "8.8.8.8"),
        ("https://[2606:4700::1]:4430/a", "2606:4700::1", 4430, "/a", "[2606:4700::1]:4430"),
    ],
)
def test_a_public_url_is_taken_apart(url: str, host: str, port: int, path: str, header: str) -> None:
    address = parse(url)
    assert (address.host, address.port, address.path, address.host_header) == (host, port, path, header)


def test_plain_http_is_allowed_by_a_setting() -> None:
    with override_settings(ALERT_WEBHOOK_ALLOW_HTTP=True):
        assert parse("http://hooks.example.com/").port == 80


def test_a_network_inside_is_allowed_by_a_setting() -> None:
    with override_settings(ALERT_WEBHOOK_ALLOWED_NETWORKS=["10.1.2.0/24", "fd00::/64"]):
        allowed = [may_connect(text) for text in ("10.1.2.3", "10.1.3.1", "fd00::5", "fd01::5", "127.0.0.1")]
    assert allowed == [True, False, True, False, False]


def test_a_name_without_an_address_is_unresolved() -> None:
    with pytest.raises(NameUnresolved):
        public_addresses(parse("https://hooks.example.com/"), resolver=lambda host, port: [])


def test_the_systems_resolver_answers_with_addresses() -> None:
    assert "127.0.0.1" in webhook_addresses.resolve("127.0.0.1", 443)


def test_a_name_that_nobody_has_is_unresolved() -> None:
    with pytest.raises(NameUnresolved, match="could not be resolved"):
        webhook_addresses.resolve("no-such-name.invalid", 443)


def test_the_resolver_is_asked_for_the_name_and_port() -> None:
    asked: list[tuple[str, int]] = []

    def resolver(host: str, port: int) -> Sequence[str]:
        asked.append((host, port))
        return [PUBLIC]

    assert public_addresses(parse("https://hooks.example.com:8443/"), resolver=resolver) == [PUBLIC]
    assert asked == [("hooks.example.com", 8443)]
