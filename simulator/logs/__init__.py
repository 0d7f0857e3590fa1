"""Logs of every kind as columns: ours, VW's dsjson, tables, the Open Bandit Dataset; and back into files."""
