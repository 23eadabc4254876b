"""The only place that draws random bits: ids that sort by time and need no coordination."""

from __future__ import annotations

import base64
import hashlib
import os

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
DEFAULT_EXPERIMENT_NAME = "Default"
DEFAULT_EXPERIMENT_ID = "0"


def new_run_id(time_us: int) -> str:
    """Return a UUIDv7 as 32 lower-case hex digits; ids made later sort later.

    Args:
        time_us: microseconds since 1970, UTC.

    Returns:
        48 bits of milliseconds, then 74 random bits, version and variant set.

    Source:
        RFC 9562, section 5.7.
    """
    random = int.from_bytes(os.urandom(10))
    value = (
        (time_us // 1000 & 0xFFFF_FFFF_FFFF) << 80
        | 0x7 << 76
        | (random >> 62 & 0xFFF) << 64
        | 0b10 << 62
        | random & 0x3FFF_FFFF_FFFF_FFFF
    )
    return f"{value:032x}"


def new_writer_id(time_us: int) -> str:
    """Return a ULID: 26 characters, 48 bits of milliseconds, then 80 random bits.

    Args:
        time_us: microseconds since 1970, UTC.

    Returns:
        upper-case Crockford base 32.

    Source:
        The ULID specification, "Canonical String Representation".
    """
    value = (time_us // 1000 & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(os.urandom(10))
    return "".join(_CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


def derived_writer_id(time_us: int, content: str) -> str:
    """Return the id of a writer that says the same whenever it is made again.

    Args:
        time_us: microseconds since 1970, UTC; a time before counts as 1970.
        content: what it says, or a digest of that.

    Returns:
        as `new_writer_id`, with 80 bits of the content's BLAKE2b in place of random ones.
    """
    digest = hashlib.blake2b(content.encode(), digest_size=10).digest()
    value = (max(time_us, 0) // 1000 & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(digest)
    return "".join(_CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


def new_logged_model_id() -> str:
    """Return an id for a logged model as MLflow makes them: `m-` and 32 random hex digits."""
    return f"m-{os.urandom(16).hex()}"


def new_nonce() -> str:
    """Return 16 random lower-case hex digits that tell one attempt from another."""
    return os.urandom(8).hex()


def new_lake_id() -> str:
    """Return 32 random lower-case hex digits that name one lake for ever."""
    return os.urandom(16).hex()


def name_hash(name: str) -> str:
    """Return 32 lower-case base-32 characters of the BLAKE2b (160 bit) of the UTF-8 name."""
    digest = hashlib.blake2b(name.encode(), digest_size=20).digest()
    return base64.b32encode(digest).decode().lower()


def derived_experiment_id(name: str) -> str:
    """Return the id of a name's first owner, on which hosts agree without asking.

    Returns:
        "0" for "Default"; else the first 20 characters of `name_hash`.
    """
    return DEFAULT_EXPERIMENT_ID if name == DEFAULT_EXPERIMENT_NAME else name_hash(name)[:20]


def random_experiment_id() -> str:
    """Return the id of a name's later owner: 20 random base-32 characters."""
    return base64.b32encode(os.urandom(13)).decode().lower()[:20]


def derived_model_id(name: str) -> str:
    """Return the id of the first model of a name.

    Returns:
        `model:` and the first 20 characters of `name_hash`; no run's or experiment's id has a
        colon, and all three stand in the same column.
    """
    return f"model:{name_hash(name)[:20]}"


def random_model_id() -> str:
    """Return the id of a later model of a name: `model:` and 20 random base-32 characters."""
    return f"model:{random_experiment_id()}"


def jitter() -> float:
    """Return a random number in [0, 1)."""
    return int.from_bytes(os.urandom(4)) / 2**32
