-- What the toolkit keeps of itself: the lease (one operator at a time) and the journal's mirror.
-- Run by the first apply. Safe to repeat, and for two to run at once. Locks: short ones on what it creates.

SELECT pg_advisory_xact_lock(hashtext('arrakis-runbooks')); -- IF NOT EXISTS alone fails where two create the same
CREATE SCHEMA IF NOT EXISTS runbooks;

CREATE TABLE IF NOT EXISTS runbooks.lease (
    name      text PRIMARY KEY,
    holder    text,
    run       text,
    since     timestamptz,
    heartbeat timestamptz,
    token     bigint NOT NULL DEFAULT 0
);
INSERT INTO runbooks.lease (name) VALUES ('operator') ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS runbooks.journal (
    chain    text NOT NULL,
    seq      bigint NOT NULL,
    run      text NOT NULL,
    phase    text NOT NULL,
    record   jsonb NOT NULL,
    mirrored timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (chain, seq)
);
CREATE INDEX IF NOT EXISTS journal_run ON runbooks.journal (run, seq);

CREATE TABLE IF NOT EXISTS runbooks.used_plans (
    plan    text PRIMARY KEY,
    run     text NOT NULL,
    used_at timestamptz NOT NULL DEFAULT now()
);
