"""Logs of other people's traffic, as typed rows. Called by the drives; nothing here is committed with its data."""
