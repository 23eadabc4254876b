"""The addresses of lakes as MLflow has them."""

from __future__ import annotations


def mlflow_uri(url: str) -> str:
    """Return MLflow's address of a lake; what fsspec needs comes from the environment."""
    scheme, separator, rest = url.partition("://")
    return f"runlake+{scheme}://{rest}" if separator else f"runlake://{url}"
