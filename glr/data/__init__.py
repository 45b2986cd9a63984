"""Data sets: found or downloaded, checked, as arrays."""
