"""Secrets are left out before anything is written: of params, arguments, variables and patches.

A secret is known in two ways: by the name that it goes under, which users may set, and by its
own look, as an access token with a known beginning, a private key or the password in a URL.
What is found is replaced by `<redacted>`; the rest stays as it is.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from runlake._lazy import lazy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runlake.redaction import texts
else:  # most processes only ask for names
    texts = lazy("runlake.redaction.texts")

REDACTED: Final = "<redacted>"
OFF: Final = "off"

# Names of secrets, found anywhere in a key, upper or lower case. `token` alone says little: it is
# one only as a whole name or behind a word of trade, so that `max_tokens`, `pad_token` and
# `tokenizer` stay.
DEFAULT: Final = (
    r"pass[_\-. ]?(word|wd|phrase)|(?<![a-z])pwd(?![a-z])|secret(?!ar|e|i)|credential"
    r"|(api|access|private|secret|account|auth|encryption|signing|ssh|storage|license|deploy)"
    r"[_\-. ]?keys?(?![a-z])"
    r"|(api|access|auth|authentication|refresh|bearer|session|personal|oauth|id|user|bot|app|csrf"
    r"|service|security|secret|login|deploy|push|registry|hub|github|gh|gitlab|slack|discord"
    r"|telegram|npm|pypi|hf|huggingface|openai|anthropic|wandb|neptune|comet|mlflow|databricks"
    r"|snowflake|aws|azure|gcp|sas|jwt)[_\-. ]?token(?![a-z])"
    r"|(?<![a-z0-9_\-])token$|authorization(?![a-z])|(?<![a-z])jwt(?![a-z])"
    r"|connection[_\-. ]?string|(?<![a-z])(sas|dsn)(?![a-z])|set[_\-. ]?cookie"
)


class Redactor:
    """What counts as a secret in one lake.

    A redactor that is off leaves everything as it is.
    """

    def __init__(self, pattern: re.Pattern[str] | None) -> None:
        """Take a pattern of names; use `redactor`.

        Args:
            pattern: searched in names; None is off.
        """
        self._pattern = pattern
        self.is_secret = lru_cache(maxsize=4096)(self._is_secret)

    def _is_secret(self, name: str) -> bool:
        """Tell whether something of this name is a secret."""
        return self._pattern is not None and self._pattern.search(name) is not None

    def is_secret_variable(self, name: str) -> bool:
        """Tell whether an environment variable is a secret.

        Args:
            name: of the variable.
        """
        if self._pattern is None:
            return False
        return self.is_secret(name) or texts.is_variable(name)

    def text(self, text: str, *, is_code: bool = False) -> str:
        """Return text without the secrets in it.

        Args:
            text: of any kind, one line or many.
            is_code: only values in quotes are secrets, others are expressions.

        Returns:
            The text, with `<redacted>` for each secret.
        """
        return text if self._pattern is None else texts.scrub(text, self.is_secret, is_code=is_code)

    def arguments(self, arguments: Iterable[str]) -> list[str]:
        """Return a command line without its secrets.

        Args:
            arguments: as `sys.argv` has them: `--password x`, `--api-key=x`, `token=x`, ...

        Returns:
            As many arguments.
        """
        if self._pattern is None:
            return list(arguments)
        return texts.scrub_arguments(arguments, self.is_secret)

    def variables(self, variables: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Return environment variables without their secrets.

        Args:
            variables: names and values.

        Returns:
            Values by name, in the order of the names.
        """
        return {
            name: REDACTED if self.is_secret_variable(name) else self.text(value)
            for name, value in sorted(variables)
        }

    def patch(self, patch: str) -> str:
        """Return a patch without the secrets in its lines.

        In code only texts in quotes are secrets: a patch is worth little where `password: str`
        is cut out of it.

        Args:
            patch: as `git diff` prints it.

        Returns:
            The patch, with as many lines but for private keys.
        """
        return patch if self._pattern is None else texts.scrub_patch(patch, self.is_secret)


@lru_cache(maxsize=64)
def redactor(setting: str | None) -> Redactor:
    """Return the redactor that a setting asks for.

    Args:
        setting: a regular expression, searched in names, upper and lower case alike; one that
            begins with `+` is added to the default; None is the default; `off` is none.

    Returns:
        The redactor.
    """
    if setting is not None and setting.lower() == OFF:
        return Redactor(None)
    pattern = setting or DEFAULT
    if pattern.startswith("+"):
        pattern = f"{DEFAULT}|(?:{pattern[1:]})"
    return Redactor(re.compile(pattern, re.IGNORECASE))
