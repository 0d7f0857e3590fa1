"""One world a file: adding a world is adding one file here with a `WORLD`."""
