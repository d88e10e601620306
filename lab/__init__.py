"""The embedded stand-in for production: PostgreSQL, Valkey, NATS and an AWS endpoint here, from wheels."""
