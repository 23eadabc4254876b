"""Checks of a whole lake: what is wrong, and what of it can be mended."""
