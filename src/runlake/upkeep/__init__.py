"""Upkeep: compaction, vacuum and verification of a lake that others write and read meanwhile."""
