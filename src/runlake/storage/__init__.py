"""Bytes and names: what a lake is made of, and nothing of what a metric means."""
