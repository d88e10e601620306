"""The sandbox lifecycle library. It knows nothing of runbooks and works on its own."""
