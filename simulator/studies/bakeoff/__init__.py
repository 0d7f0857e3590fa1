"""The bake-off: our policies beside those of other libraries, in the same worlds with the same visits."""
