"""Results as tables in the terminal; the pages beside it show the same figures."""
