"""A contextual bandit decision service. `README.md` beside says which room holds what."""
