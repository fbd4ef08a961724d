"""Keys go, what only looks a little like one stays; nothing steers a terminal or the direction of text."""

import pytest

from fastslow.redact import REDACTED, redact_config, redact_text, visible


@pytest.mark.parametrize(
    "key",
    [
        "sk-ant-api03-abcdefghijklmnop", "hf_abcdefghijklmnopqrstuvwx", "ghp_abcdefghijklmnopqrstuvwxyz0123",
        "AKIAIOSFODNN7EXAMPLE", "xoxb-1234567890-abcdef", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc",
    ],
)  # fmt: skip
def test_keys_of_known_services_go_from_any_text(key: str) -> None:
    assert redact_text(f"before {key} after") == f"before {REDACTED} after"


def test_addresses_lose_their_passwords_and_keys_alone() -> None:
    url = "https://user:pass@host.org/v1/models?key=abc&page=2#top"
    assert redact_text(url) == f"https://{REDACTED}@host.org/v1/models?key={REDACTED}&page=2#top"
    assert redact_text("for a;keys=3 in x?design=1") == "for a;keys=3 in x?design=1"


def test_options_named_like_secrets_go_and_counts_of_tokens_stay() -> None:
    tree = {
        "api_key": "whatever", "apiKey": "x", "nested": [{"secret_value": "y"}], "max_tokens": 4096,
        "microbatch_tokens": "many", "api_key_env": "OPENAI_API_KEY", "authToken": "z", "token": None,
        "revision": "0123456789abcdef0123456789abcdef01234567", "loose": "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dF3",
    }  # fmt: skip
    assert redact_config(tree) == {
        "api_key": REDACTED, "apiKey": REDACTED, "nested": [{"secret_value": REDACTED}], "max_tokens": 4096,
        "microbatch_tokens": "many", "api_key_env": "OPENAI_API_KEY", "authToken": REDACTED, "token": None,
        "revision": "0123456789abcdef0123456789abcdef01234567", "loose": REDACTED,
    }  # fmt: skip
    assert redact_config({"api_key_env": "sk-live-not/a-name"}) == {"api_key_env": REDACTED}


def test_control_characters_become_visible() -> None:
    assert visible("a\x1b[2J\x07\x00\x7f\tb\r\nc\rd") == "a␛[2J␇␀␡\tb\nc␍d"
    assert visible("\u202egnp.exe") == "⟨U+202E⟩gnp.exe"
    assert visible("naïve 漢字 \u00a0 😀") == "naïve 漢字 \u00a0 😀"
