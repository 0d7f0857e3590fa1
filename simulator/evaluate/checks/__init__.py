"""Checks of a log and of a candidate policy, each with a verdict and what to do."""
