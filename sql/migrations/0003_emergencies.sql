-- What an emergency stop keeps: the flag that halts every clean-up and apply, and how things were before it.
-- Run by the first apply or stop. Safe to repeat, and for two to run at once. Locks: short ones on what it creates.

SELECT pg_advisory_xact_lock(hashtext('arrakis-runbooks')); -- IF NOT EXISTS alone fails where two create the same
CREATE SCHEMA IF NOT EXISTS runbooks;

CREATE TABLE IF NOT EXISTS runbooks.stops (
    id        text PRIMARY KEY,
    raised_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    raised_by text NOT NULL,
    reason    text NOT NULL,
    halting   boolean NOT NULL,  -- whether clean-ups and applies halt: the flag
    parts     jsonb NOT NULL,    -- the actions that stopped the rule and the service; the sandboxes are below
    lifted_at timestamptz,
    lifted_by text
);
-- One stop at a time: a second one adds to the first.
CREATE UNIQUE INDEX IF NOT EXISTS stops_raised ON runbooks.stops ((true)) WHERE lifted_at IS NULL;

CREATE TABLE IF NOT EXISTS runbooks.stopped_sandboxes (
    stop         text NOT NULL REFERENCES runbooks.stops (id),
    sandbox      uuid NOT NULL,
    name         text NOT NULL,
    status       text NOT NULL, -- before the stop
    destroyed_at timestamptz,   -- before the stop
    expires_at   timestamptz NOT NULL, -- before the stop, as the next two
    schemas      text[] NOT NULL,
    guilds       text[] NOT NULL,
    marked_at    timestamptz NOT NULL,
    restored_at  timestamptz,
    PRIMARY KEY (stop, sandbox)
);
