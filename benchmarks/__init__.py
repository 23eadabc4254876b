"""Benchmarks: one question per file, measured against peers or a physical limit."""
