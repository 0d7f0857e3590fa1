"""A contextual bandit decision service. The README's "Architecture" says which room holds what."""
