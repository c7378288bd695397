"""Screening of synthetic cases: what masks look like, and how far images lie from the real ones."""
