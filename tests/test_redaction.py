from __future__ import annotations

import string
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runlake.errors import InvalidInputError
from runlake.lake import open_lake
from runlake.redaction import REDACTED, Redactor, redactor
from runlake.redaction.texts import url_without_secrets

if TYPE_CHECKING:
    from pathlib import Path

    from runlake.lake import Lake

default = redactor(None)
LETTERS = string.ascii_letters + string.digits
# Long enough, and odd enough, to stand in no text by chance.
secrets = st.text(LETTERS, min_size=10, max_size=40).map("Zq9{}".format)
lines = st.text(st.characters(codec="utf-8"), max_size=60)
NAMES = [
    "password",
    "passwd",
    "db_password",
    "userPassword",
    "DB-PASSWORD",
    "passphrase",
    "secret",
    "client_secret",
    "aws.secret_access_key",
    "api_key",
    "apiKey",
    "API-KEY",
    "my_api_keys",
    "access_key",
    "private_key",
    "auth_token",
    "accessToken",
    "refresh-token",
    "hf_token",
    "GITHUB_TOKEN",
    "WANDB_API_KEY",
    "token",
    "hub.token",
    "credentials",
    "authorization",
    "jwt",
    "sas_token",
    "connection_string",
    "pwd",
    "model.api_key",
]
HARMLESS = [
    "max_tokens",
    "pad_token",
    "eos_token_id",
    "tokenizer",
    "n_tokens",
    "tokens",
    "token_count",
    "num_special_tokens",
    "image_token",
    "start_token",
    "key",
    "keys",
    "primary_key",
    "hash_key",
    "monkey",
    "keyboard",
    "author",
    "passes",
    "bypass",
    "compass",
    "n_passed",
    "secretary",
    "lr",
    "learning_rate",
    "sort_key",
    "partition_key",
    "public_key",
    "train/loss",
    "authors",
    "pwdist",
    "session_length",
    "api_keyboard",
    "idle_tokens",
    "unk_token",
    "bos_token",
    "mask_token",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_secrets_are_known(name: str) -> None:
    assert default.is_secret(name)


@pytest.mark.parametrize("name", HARMLESS)
def test_names_that_only_look_like_secrets_stay(name: str) -> None:
    assert not default.is_secret(name)


@given(secret=secrets, name=st.sampled_from(NAMES), before=lines, after=lines)
def test_no_value_of_a_secret_argument_is_kept(
    secret: str, name: str, before: str, after: str
) -> None:
    flag = f"--{name}"
    forms = ([flag, secret], [f"{flag}={secret}"], [f"{name}={secret}"], [flag[1:], secret])
    for form in forms:
        kept = default.arguments(["train.py", *form, "--lr", "0.1"])
        assert secret not in " ".join(kept)
        assert kept[0] == "train.py"
        assert kept[-2:] == ["--lr", "0.1"]
        assert len(kept) == len(form) + 3
    assert secret not in " ".join(default.arguments([before, *forms[1], after]))


@given(
    secret=secrets,
    form=st.sampled_from(
        [
            "ghp_{}0123456789",
            "github_pat_{}0123456789",
            "hf_{}0123456789",
            "sk-{}0123456789",
            "sk-ant-api03-{}0123456789",
            "glpat-{}0123456789",
            "xoxb-{}0123456789",
            "https://user:{}@example.org/x.git",
            "https://{}@example.org/x.git",
            "postgresql+psycopg://me:a@b{}@db:5432/x",
            "s3://key:{}@bucket/x",
            "https://x.blob.core.windows.net/c?sv=1&sig={}&se=2",
            "https://b.s3.amazonaws.com/k?X-Amz-Signature={}",
            "https://example.org/a?api_key={}",
            "Authorization: Bearer {}0123456789",
            'password = "{}"',
            'db = connect(password="{}", user="me")',
            '{{"api_key": "{}", "n": 3}}',
            '"source": ["api_key = \\"{}\\"\\n"]',
            'os.environ["HF_TOKEN"] = "{}"',
            'env = "PASSWORD={}"',
            "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
        ]
    ),
    before=lines,
    after=lines,
)
def test_secrets_known_by_their_look_are_left_out_of_any_text(
    secret: str, form: str, before: str, after: str
) -> None:
    text = f"{before}\n {form.format(secret)} \n{after}"
    if "env" not in form:  # in code, what has no quotes of its own is an expression
        assert secret not in default.text(text, is_code=True)
    assert secret not in default.text(text)


@given(secret=secrets, name=st.sampled_from(["password", "API_KEY", "auth_token"]))
def test_values_without_quotes_are_left_out_of_settings_to_the_end_of_the_line(
    secret: str, name: str
) -> None:
    for form in (f"{name}: {secret} {secret}", f"export {name}={secret}", f"  {name} = {secret}"):
        assert secret not in default.text(form)
        assert secret not in default.text(f"+{form}\n")


@given(text=st.text(st.characters(codec="utf-8"), max_size=200))
@example(text="password=\\")
@example(text="token: '''x'''\r\npassword: \"")
def test_redacting_twice_is_the_same_as_once(text: str) -> None:
    once = default.text(text)
    assert default.text(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "--lr 0.1 --max_tokens 2048 --tokenizer=bert",
        "git@github.com:team/repository.git",
        "ssh://git@github.com/team/repository.git",
        "https://github.com/team/repository.git",
        "https://example.org/@user/page?step=3&seed=1",
        "mail me@example.org: the risk-free sk-learn task",
        "pad_token = '<pad>'",
        "use_password = True\nsecret: null",
    ],
)
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    assert default.text(text) == text
    assert default.arguments(text.split(" ")) == text.split(" ")


def test_a_patch_keeps_its_code_and_loses_its_secrets() -> None:
    patch = (
        "diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1 +1,3 @@\n"
        "+def login(user: str, password: str) -> None:\n"
        "+    token = tokenizer.token\n"
        '+    password = "hunter2"\n'
        "diff --git a/a.yaml b/a.yaml\n--- a/a.yaml\n+++ b/a.yaml\n@@ -1 +1 @@\n"
        "-password: hunter2 and more\n+max_tokens: 5\n"
    )
    assert default.patch(patch) == patch.replace('"hunter2"', f'"{REDACTED}"').replace(
        "hunter2 and more", REDACTED
    )


def test_variables_that_end_as_secrets_do_are_left_out() -> None:
    given_ = {"SLURM_JWT": "a", "MY_TOKEN": "b", "X_KEY": "c", "RANK": "3", "URL": "http://a:b@c/"}
    assert default.variables(given_.items()) == {
        "MY_TOKEN": REDACTED,
        "RANK": "3",
        "SLURM_JWT": REDACTED,
        "URL": f"http://{REDACTED}@c/",
        "X_KEY": REDACTED,
    }


def test_users_set_the_pattern_add_to_it_or_turn_it_off() -> None:
    def found(setting: str | None) -> list[bool]:
        return [redactor(setting).is_secret(name) for name in ("password", "Codename", "lr")]

    assert found(None) == [True, False, False]
    assert found("codename") == [False, True, False]
    assert found("+codename") == [True, True, False]
    assert found("off") == [False, False, False]
    off = redactor("OFF")
    text = "password=x https://a:b@c"
    assert (off.text(text), off.patch(text), off.arguments([text])) == (text, text, [text])
    assert off.variables([("TOKEN", "x")]) == {"TOKEN": "x"}
    assert isinstance(off, Redactor)


def test_a_long_line_takes_no_long_time_however_it_looks() -> None:
    # Each of these made a naive pattern take minutes.
    for line in (
        "a" * 500_000,
        "a_" * 250_000,
        'a="' * 150_000,
        "password" * 60_000,
        ":" * 500_000,
    ):
        assert len(default.text(line)) <= len(line) + len(REDACTED)


@given(secret=secrets)
def test_a_remote_address_is_kept_without_who_asks(secret: str) -> None:
    assert url_without_secrets(f"https://me:{secret}@example.org/a.git") == (
        f"https://{REDACTED}@example.org/a.git"
    )


def test_params_with_names_of_secrets_are_kept_redacted_and_may_be_logged_again(
    lake: Lake,
) -> None:
    with lake.start_run() as run:
        assert run.log_param("api_key", 5.0) == 5.0
        run.log_param("api_key", "another")
        run.log_params({"optimizer": {"lr": 0.1}, "db": {"password": "hunter2"}})
        run.log_batch(params={"api_key": "a third", "max_tokens": 10})
    with lake.start_run(run_id=run.run_id) as again:
        again.log_param("api_key", "a fourth")
    assert lake.sql("SELECT key, value, number FROM params ORDER BY key").rows() == [
        ("api_key", REDACTED, None),
        ("db.password", REDACTED, None),
        ("max_tokens", "10", 10.0),
        ("optimizer.lr", "0.1", 0.1),
    ]


def test_the_pattern_of_secret_params_is_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNLAKE_REDACT", "^codename$")
    with open_lake(str(tmp_path / "lake")) as lake, lake.start_run() as run:
        run.log_params({"codename": "x", "password": "y"})
    monkeypatch.setenv("RUNLAKE_REDACT", "(")
    with pytest.raises(InvalidInputError, match=r"RUNLAKE_REDACT is '\('.*no regular expression"):
        open_lake(str(tmp_path / "lake"))
    monkeypatch.delenv("RUNLAKE_REDACT")
    with open_lake(str(tmp_path / "lake")) as lake:
        with lake.start_run(run_id=run.run_id) as again:
            again.log_param("password", "y")  # kept before, and no secret then
        assert lake.get_run(run.run_id).data.params == {"codename": REDACTED, "password": "y"}
