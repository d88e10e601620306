"""The proof of what is promised: docs/safety.md says which promise each test is about."""
