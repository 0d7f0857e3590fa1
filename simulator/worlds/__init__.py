"""Synthetic worlds with known means; one small file each."""
