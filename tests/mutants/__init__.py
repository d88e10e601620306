"""Mutation testing: small changes to a module, each of which some test has to notice."""
