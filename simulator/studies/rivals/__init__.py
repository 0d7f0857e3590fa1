"""The rivals: what other tools say about a log whose truth is known. Benchmark only; nothing of the product needs it.

`known.py` makes the log. Each `with_*.py` runs one rival in the rivals' own environment (`requirements.txt`), reads
the log from arrays and prints its rows (`exchange.py`). Called by `simulator/studies/side_by_side.py` and
`simulator/studies/bench_evaluate.py`.
"""
