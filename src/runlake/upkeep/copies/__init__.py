"""Copies of whole runs from one lake into another."""
