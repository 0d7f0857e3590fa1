"""The tests, by kind: conformance, laws, identity, quality. See the README, "Tests"."""
