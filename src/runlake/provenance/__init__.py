"""Where a run comes from: code, command, machine and packages, kept by themselves.

Nothing here delays a run. What is to be known is found once for each process in a thread of its
own, and a run that has ended meanwhile gets it all the same. What cannot be found out is noted
in what is kept, and never told as a warning. Secrets are left out, see `runlake.redaction`.
"""

from __future__ import annotations

from runlake.provenance.collector import begin, settle

__all__ = ["begin", "settle"]
