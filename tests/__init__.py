"""The tests of runlake; `CONTRIBUTING.md` says which folder holds what."""
