"""Measurements of this project: speed, coverage, other libraries. Not part of the product, not in the wheel."""
