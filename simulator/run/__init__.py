"""Policies play worlds: one pure function a run, many runs in parallel, what came out."""
