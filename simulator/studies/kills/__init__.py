"""`make kills`: several workers on one machine are killed under load. See `__main__.py`."""
