"""Data sets that runs read: what tells one from another, and the rows that say who read it.

A data set is known by its name and its digest; schema and profile tell people what it is. Of
the same data set in two contexts, as for training and for validation, a run says both.
"""

from __future__ import annotations

from runlake.dataset.entity import Dataset, input_rows

__all__ = ["Dataset", "input_rows"]
