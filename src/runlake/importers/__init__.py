"""Runs of other trackers, brought into a lake."""
