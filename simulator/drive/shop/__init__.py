"""A small shop of the demo that a person can visit, in a browser, beside simulated visitors.

`places.py` says what is decided there, `crowd.py` sends the simulated visitors, `shares.py` reads the log, `port.py`
serves the page in `page/`. The page itself calls the decision service from the browser.
"""
