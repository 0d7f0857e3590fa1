"""The researchers' tools: worlds, datasets, replay, evaluation. Imports `decider`; nothing there imports it."""
