"""No secret leaves, whatever shape it has; what only looks like one stays readable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemons.alerts.scrub import scrub

HEX = "0123456789abcdef0123456789abcdef01234567"
KEY = "-----BEGIN {0}PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq\nq83Xz+/w==\n-----END {0}PRIVATE KEY-----"

SECRETS = [
    # Slack
    ("posting with xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcBrzygqy", "posting with ***"),
    ("token xoxp-1-2-3abc refused", "token *** refused"),
    ("xapp-1-A01-123-abcdef", "***"),
    ("POST https://hooks.slack.com/services/T000/B000/XXXXXXXX failed", "POST https://hooks.slack.com/*** failed"),
    # headers
    ("Authorization: Bearer abcdef123456", "Authorization: ***"),
    ("authorization: Basic dXNlcjpwYXNz", "authorization: ***"),
    ('-H "Authorization: token abc123"', '-H "Authorization: ***"'),
    ('{"Authorization": "Bearer abc.def-123"}', '{"Authorization": "***"}'),
    ("sent Bearer q1w2e3r4t5 to it", "sent Bearer *** to it"),
    ("sent Basic dXNlcjpwYXNzd29yZA==", "sent Basic ***"),
    ("Cookie: session=abc; csrftoken=def", "Cookie: ***"),
    ("Set-Cookie: sid=31d4d96e407aad42; HttpOnly", "Set-Cookie: ***"),
    ("X-Api-Key: 12ab", "X-Api-Key: ***"),
    # clouds
    ("key AKIAIOSFODNN7EXAMPLE used", "key *** used"),
    ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "AWS_SECRET_ACCESS_KEY=***"),
    ("aws_access_key_id = ASIAIOSFODNN7EXAMPLE", "aws_access_key_id = ***"),
    ("AccountKey=Zm9vYmFy+/==;EndpointSuffix=core", "AccountKey=***;EndpointSuffix=core"),
    ("GET /blob?sv=2020&sig=Zm9v%2Bbar%3D&se=x", "GET /blob?sv=2020&sig=***&se=x"),
    ("X-Amz-Signature=fe5f80f77d5fa3beca038a248ff027d0445342fe", "X-Amz-Signature=***"),
    ("AIzaSyA-1234567890abcdefghijklmnopqrstu", "***"),
    # model hubs, code hosts
    ("hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345", "***"),
    ("HF_TOKEN=hf_abc", "HF_TOKEN=***"),
    ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", "***"),
    ("github_pat_11ABCDEFG0_abcdefghijklmnopqrstuvwxyz", "***"),
    ("glpat-abcdefghij1234567890", "***"),
    ("sk-ant-api03-abcdefghijklmnopqrstuvwxyz", "***"),
    ("nvapi-abcdefghijklmnopqrstuvwxyz0123", "***"),
    (f"WANDB_API_KEY={HEX}", "WANDB_API_KEY=***"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P", "***"),
    # addresses
    ("postgresql://muster:hunter2@db:5432/fleet", "postgresql://***@db:5432/fleet"),
    ("redis://:pw@cache", "redis://***@cache"),
    ("https://abcdef0123@github.com/x/y", "https://***@github.com/x/y"),
    ("mongodb+srv://u:p%40ss@h/d?w=1", "mongodb+srv://***@h/d?w=1"),
    ("http://u:p@ss@proxy:3128", "http://***@proxy:3128"),
    # names and values
    ("password=hunter2", "password=***"),
    ("DB_PASSWORD: hunter2, host: x", "DB_PASSWORD: ***, host: x"),
    ('{"password": "hunter two", "n": 1}', '{"password": "***", "n": 1}'),
    ('{"password": "a\\"b", "n": 1}', '{"password": "***"b", "n": 1}'),
    ("{'client_secret': 'x y'}", "{'client_secret': '***'}"),
    ('log: {\\"api_key\\": \\"k1\\"}', 'log: {\\"api_key\\": \\"***\\"}'),
    ("--token abc --steps 5", "--token *** --steps 5"),
    ("--wandb-api-key=abc --steps 5", "--wandb-api-key=*** --steps 5"),
    ("export NGC_API_KEY := abc", "export NGC_API_KEY := ***"),
    ("passwd => 'x'", "passwd => '***'"),
    ("secret=abc&x=1", "secret=***&x=1"),
    # key files
    (KEY.format("RSA "), "[private key removed]"),
    (f"before {KEY.format('OPENSSH ')} after", "before [private key removed] after"),
    (KEY.format("EC ").replace("\n", "\\n"), "[private key removed]"),
    (KEY.format("RSA ").replace("MII", "MII" + "abcdEFGH" * 400), "[private key removed]"),
    (KEY.format("")[:40], "[private key removed]"),
]

NEAR_MISSES = [
    "max_tokens=2048 tokens: 31457280 tokens_per_second=12000",
    "token: 17 of 512",
    "pad_token=<pad> eos_token: '</s>'",
    "next_token=hello",
    "tokenizer=gpt2 from /data/tokenizer.json",
    "basic configuration done, bearer of news",
    "password: None",
    '{"token": null, "secret": ""}',
    "Failed password for root from 10.0.0.1",
    "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
    "git clone ssh://git@github.com/x/y",
    "mailto ops@example.com at http://host:8080/path?x=1",
    "net.infiniband on ib/mlx5_0/1: 12 errors, key 0x1f",
    "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----",
    "task-1234 sk-learn risk-free xoxo hf_hub",
    "design=7 assigned=x key=value monkey=7 keys: 3",
    "commit 0123456789abcdef0123456789abcdef01234567",
    "/usr/share/secrets.d/readme",
]


@pytest.mark.parametrize(("text", "clean"), SECRETS, ids=range(len(SECRETS)))
def test_secrets_are_removed(text: str, clean: str) -> None:
    assert scrub(text) == clean


@pytest.mark.parametrize("text", NEAR_MISSES)
def test_near_misses_stay_as_they_are(text: str) -> None:
    assert scrub(text) == text


@pytest.mark.parametrize(("text", "clean"), SECRETS, ids=range(len(SECRETS)))
def test_scrubbing_twice_changes_nothing_more(text: str, clean: str) -> None:
    assert scrub(scrub(text)) == scrub(text)


@given(st.text(max_size=300))
def test_any_text_can_be_scrubbed(text: str) -> None:
    scrub(text)


@given(st.text(alphabet="abcXYZ019_", min_size=12, max_size=40).filter(lambda v: v.strip("_")))
def test_no_value_of_a_password_survives(value: str) -> None:
    assert value not in scrub(f"connecting with password={value} to db")


def test_text_that_is_not_ascii_is_kept() -> None:
    assert scrub("Grüße ✓ password=ü✓x ende ✓") == "Grüße ✓ password=*** ende ✓"
