"""Secrets in texts: found by the name that they go under, or by their own look."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, TypeAlias

from runlake.redaction import REDACTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Tell: TypeAlias = "Callable[[str], bool]"  # whether something of a name is a secret

# In the environment, whatever ends in TOKEN or KEY is one.
_VARIABLE: Final = re.compile(r"(TOKEN|_KEY|_PAT|_AUTH|COOKIE)$", re.IGNORECASE)

_TOKENS: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_\-]{16,}"
    r"|hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_\-]{16,}|[srp]k_(?:live|test)_[A-Za-z0-9]{16,}"
    r"|(?:AKIA|ASIA|AIDA|AROA)[A-Z0-9]{12,}|xox[abeoprs]-[A-Za-z0-9\-]{10,}"
    r"|AIza[A-Za-z0-9_\-]{30,}|ya29\.[A-Za-z0-9_\-]{16,}|npm_[A-Za-z0-9]{30,}"
    r"|pypi-[A-Za-z0-9_\-]{30,}|dop_v1_[a-f0-9]{32,}|dapi[a-f0-9]{32}"
    r"|SG\.[A-Za-z0-9_\-]{16,}\.[A-Za-z0-9_\-]{16,}"
    r"|eyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*"
    r")"
)
_BEARER: Final = re.compile(r"\b(bearer|basic)(\s+)[A-Za-z0-9+/=_\-.]{12,}", re.IGNORECASE)
_PRIVATE_KEY: Final = re.compile(
    r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY[A-Z ]*)-----.*?(?:-----END \1-----|\Z)", re.DOTALL
)
# The last @ before the path ends a password, in which people forget to escape one.
_USERINFO: Final = re.compile(r"\b([a-z][a-z0-9+.\-]*)://([^\s/?#'\"<>]*)@", re.IGNORECASE)
_QUERY: Final = re.compile(
    r"([?&;](?:sig|signature|x-amz-signature|x-amz-security-token|x-amz-credential"
    r"|x-goog-signature|x-goog-credential|token|key|auth|code|[a-z0-9_\-]*(?:secret|password|token"
    r"|api_?key|access_?key|accountkey)[a-z0-9_\-]*)=)[^&\s'\"#;]+",
    re.IGNORECASE,
)
_SECRETLESS_USERS: Final = frozenset({"git", "hg", "svn"})
_CODE: Final = frozenset(
    {".py", ".pyi", ".pyx", ".js", ".jsx", ".ts", ".tsx", ".go", ".rs", ".java", ".scala", ".kt"}
    | {".c", ".cc", ".cpp", ".cu", ".h", ".hpp", ".cs", ".swift", ".jl", ".r", ".lua", ".rb"}
)
# A name, and the sign that gives it a value: `password = `, `"api_key": `, `TOKEN=`.
_NAMED: Final = re.compile(
    r"(?:(?<![\w.\-])|^-|(?<=\s-)|(?<=\s--))([A-Za-z_][\w.\-]{0,100})\\?[\"']?\]?\s{0,8}(?:=>|:=|==?|:)\s{0,8}"
)
_QUOTED: Final = re.compile(r"([rbfu]{0,2}(\\?[\"']{3}|\\?[\"']))(.*?)(?=\2|$)", re.IGNORECASE)
_BARE: Final = re.compile(r"[^\s\"',;)}\]&]+")
_REST: Final = re.compile(r"[^\r\n]*[^\s,]")
_FIRST: Final = re.compile(r"[+\- ]?\s*(?:export\s+|-\s+)?[\"']?")
_CONSTANTS: Final = frozenset({"true", "false", "null", "none"})
_PIECE_CHARS: Final = 1 << 14
_MARK: Final = re.compile(r"diff --git |\+\+\+ ")


def is_variable(name: str) -> bool:
    """Tell whether an environment variable's name ends as those of secrets do."""
    return _VARIABLE.search(name) is not None


def scrub(text: str, is_secret: Tell, *, is_code: bool = False) -> str:
    """Return text without the secrets in it.

    Args:
        text: of any kind, one line or many.
        is_secret: tells whether something of a name is a secret.
        is_code: only values in quotes are secrets, others are expressions.

    Returns:
        The text, with `<redacted>` for each secret.
    """
    text = _PRIVATE_KEY.sub(lambda found: f"-----BEGIN {found[1]}-----{REDACTED}", text)
    kept: list[str] = []
    for some in _pieces(text):
        piece = url_without_secrets(some) if "://" in some else some
        piece = _TOKENS.sub(REDACTED, piece)
        piece = _BEARER.sub(rf"\1\2{REDACTED}", piece)
        lines = piece.splitlines(keepends=True)
        kept += [_line(line, is_secret, is_code=is_code) for line in lines]
    return "".join(kept)


def _pieces(text: str) -> Iterator[str]:
    """Yield text in pieces that end with a line: a search in all of it would hold up threads."""
    begin = 0
    while begin < len(text):
        end = text.find("\n", begin + _PIECE_CHARS) + 1 or len(text)
        yield text[begin:end]
        begin = end


def scrub_arguments(arguments: Iterable[str], is_secret: Tell) -> list[str]:
    """Return a command line without its secrets; see `Redactor.arguments`."""
    kept: list[str] = []
    is_next = False
    for argument in arguments:
        if is_next and not argument.startswith("--"):
            kept.append(REDACTED)
            is_next = False
            continue
        name, sign, value = argument.partition("=")
        is_next = False
        if sign and value and is_secret(name.lstrip("-+")):
            kept.append(f"{name}={REDACTED}")
            continue
        is_next = argument.startswith("-") and not sign and is_secret(name.lstrip("-"))
        kept.append(scrub(argument, is_secret))
    return kept


def scrub_patch(patch: str, is_secret: Tell) -> str:
    """Return a patch without the secrets in its lines; see `Redactor.patch`."""
    return "".join(scrub(part, is_secret, is_code=is_code) for part, is_code in _files_of(patch))


def _line(line: str, is_secret: Tell, *, is_code: bool) -> str:
    """Return a line without the values that are given to names of secrets."""
    kept: list[str] = []
    done = 0
    at = _NAMED.search(line)
    while at is not None:
        end = at.end()
        if is_secret(at[1]):
            is_first = _FIRST.fullmatch(line, 0, at.start()) is not None
            begin, end = _value(line, end, is_code=is_code, is_first=is_first)
            if end > begin:
                kept += [line[done:begin], REDACTED]
                done = end
        at = _NAMED.search(line, end)
    return "".join([*kept, line[done:]])


def _value(line: str, begin: int, *, is_code: bool, is_first: bool) -> tuple[int, int]:
    """Return where a value begins and ends; an empty one where it is no secret.

    Args:
        line: the line.
        begin: where the value begins, with its quotes.
        is_code: without quotes it is an expression.
        is_first: its name is the first thing in the line: the value may have spaces.
    """
    quoted = _QUOTED.match(line, begin)
    if quoted is not None:
        return quoted.start(3), quoted.end(3)
    found = None if is_code else (_REST if is_first else _BARE).match(line, begin)
    if found is None or found[0].lower() in _CONSTANTS:
        return begin, begin
    return begin, found.end()


def _files_of(patch: str) -> Iterator[tuple[str, bool]]:
    """Yield the part of each file of a patch, and whether the file is code."""
    part: list[str] = []
    is_code = False
    for line in patch.splitlines(keepends=True):
        if _MARK.match(line):
            if line.startswith("diff ") and part:
                yield "".join(part), is_code
                part, is_code = [], False
            is_code = PurePosixPath(line.strip().strip('"')).suffix.lower() in _CODE
        part.append(line)
    if part:
        yield "".join(part), is_code


def url_without_secrets(text: str) -> str:
    """Return text whose URLs hold no user, password or signature.

    Args:
        text: a URL, or text with URLs in it. Users without a password, as in `ssh://git@host`,
            stay.

    Returns:
        The text; a user with a password is left out whole, a signature becomes `<redacted>`.
    """

    def without(found: re.Match[str]) -> str:
        scheme, user = found[1], found[2]
        if user in _SECRETLESS_USERS or (":" not in user and scheme.lower().endswith("ssh")):
            return found[0]
        return f"{scheme}://{REDACTED}@"

    return _QUERY.sub(rf"\1{REDACTED}", _USERINFO.sub(without, text))
