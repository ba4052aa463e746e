"""Whether the tests notice small mistakes: `make mutants` makes them, one at a time."""
