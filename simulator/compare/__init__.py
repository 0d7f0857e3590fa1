"""Many policies, parameters and seeds side by side, and which of the differences are real."""
