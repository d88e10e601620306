"""One module a procedure, read top to bottom like the page that it replaces."""
