"""The tests, by kind: conformance, laws, identity, quality."""
