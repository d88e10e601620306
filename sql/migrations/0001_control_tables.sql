-- The sandbox control plane: one enum, three tables, four functions, as the deployed system has them.
-- Safe to run where they exist already: nothing that is there is changed, the functions are replaced by equals.
-- Locks: short ones on what it creates. From PostgreSQL 13 (gen_random_uuid).

DO $migration$
BEGIN
    IF to_regtype('public.sandbox_status') IS NULL THEN
        CREATE TYPE public.sandbox_status AS ENUM
            ('pending', 'creating', 'running', 'expired', 'destroying', 'destroyed');
    END IF;
END
$migration$;

CREATE TABLE IF NOT EXISTS public.sandboxes (
    id               uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name             varchar(64) NOT NULL,
    owner            varchar(64) NOT NULL,
    status           public.sandbox_status NOT NULL DEFAULT 'pending',
    schema_name      varchar(64) NOT NULL,
    discord_token_id uuid,
    created_at       timestamptz NOT NULL DEFAULT now(),
    expires_at       timestamptz NOT NULL,
    destroyed_at     timestamptz,
    last_activity_at timestamptz,
    metadata         jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT sandboxes_name_unique UNIQUE (name),
    CONSTRAINT sandboxes_schema_name_unique UNIQUE (schema_name)
);
CREATE INDEX IF NOT EXISTS idx_sandboxes_status ON public.sandboxes (status);
CREATE INDEX IF NOT EXISTS idx_sandboxes_owner ON public.sandboxes (owner);
CREATE INDEX IF NOT EXISTS idx_sandboxes_expires ON public.sandboxes (expires_at) WHERE status = 'running';
CREATE INDEX IF NOT EXISTS idx_sandboxes_created ON public.sandboxes (created_at DESC);

CREATE TABLE IF NOT EXISTS public.sandbox_guild_mapping (
    guild_id   varchar(20) PRIMARY KEY,
    sandbox_id uuid NOT NULL REFERENCES public.sandboxes (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS idx_sandbox_guild_mapping_sandbox ON public.sandbox_guild_mapping (sandbox_id);

CREATE TABLE IF NOT EXISTS public.sandbox_audit_log (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    sandbox_id uuid NOT NULL REFERENCES public.sandboxes (id) ON DELETE CASCADE,
    event_type varchar(32) NOT NULL,
    actor      varchar(64) NOT NULL,
    details    jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS idx_sandbox_audit_log_sandbox_time
    ON public.sandbox_audit_log (sandbox_id, created_at DESC);
CREATE INDEX IF NOT EXISTS idx_sandbox_audit_log_type ON public.sandbox_audit_log (event_type);

CREATE OR REPLACE FUNCTION public.create_sandbox_schema(p_sandbox_id text) RETURNS void
LANGUAGE plpgsql AS $function$
DECLARE
    s text := 'sandbox_' || p_sandbox_id;
BEGIN
    EXECUTE format('CREATE SCHEMA %I', s);
    EXECUTE format($ddl$
        CREATE TABLE %1$I.communities (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            name varchar(255) NOT NULL,
            theme_id varchar(64),
            subscription_tier varchar(32),
            discord_guild_id varchar(20) UNIQUE,
            telegram_chat_id varchar(20) UNIQUE,
            is_active boolean NOT NULL DEFAULT true,
            settings jsonb NOT NULL DEFAULT '{}',
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE TABLE %1$I.profiles (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            community_id uuid NOT NULL REFERENCES %1$I.communities (id) ON DELETE CASCADE,
            discord_id varchar(20),
            telegram_id varchar(20),
            wallet_address varchar(64),
            tier varchar(32),
            current_rank integer,
            activity_score integer NOT NULL DEFAULT 0,
            conviction_score integer NOT NULL DEFAULT 0,
            joined_at timestamptz NOT NULL DEFAULT now(),
            last_seen_at timestamptz,
            first_claim_at timestamptz,
            metadata jsonb NOT NULL DEFAULT '{}',
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            UNIQUE (community_id, discord_id),
            UNIQUE (community_id, telegram_id)
        );
        CREATE TABLE %1$I.badges (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            community_id uuid NOT NULL REFERENCES %1$I.communities (id) ON DELETE CASCADE,
            profile_id uuid NOT NULL REFERENCES %1$I.profiles (id) ON DELETE CASCADE,
            badge_type varchar(64) NOT NULL,
            awarded_at timestamptz NOT NULL DEFAULT now(),
            awarded_by uuid REFERENCES %1$I.profiles (id) ON DELETE SET NULL,
            revoked_at timestamptz,
            metadata jsonb NOT NULL DEFAULT '{}',
            created_at timestamptz NOT NULL DEFAULT now(),
            UNIQUE (community_id, profile_id, badge_type)
        );
        CREATE INDEX idx_profiles_community ON %1$I.profiles (community_id);
        CREATE INDEX idx_profiles_wallet ON %1$I.profiles (wallet_address);
        CREATE INDEX idx_badges_profile ON %1$I.badges (profile_id);
        CREATE INDEX idx_badges_type ON %1$I.badges (badge_type)
    $ddl$, s);
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'arrakis_app') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO arrakis_app', s);
        EXECUTE format('GRANT ALL ON ALL TABLES IN SCHEMA %I TO arrakis_app', s);
    END IF;
END
$function$;

CREATE OR REPLACE FUNCTION public.drop_sandbox_schema(p_sandbox_id text) RETURNS void
LANGUAGE plpgsql AS $function$
BEGIN
    EXECUTE format('DROP SCHEMA IF EXISTS %I CASCADE', 'sandbox_' || p_sandbox_id);
END
$function$;

CREATE OR REPLACE FUNCTION public.sandbox_schema_exists(p_sandbox_id text) RETURNS boolean
LANGUAGE sql STABLE AS $function$
    SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'sandbox_' || p_sandbox_id)
$function$;

CREATE OR REPLACE FUNCTION public.get_sandbox_schema_stats(p_sandbox_id text)
RETURNS TABLE (table_name text, row_count bigint)
LANGUAGE plpgsql AS $function$
DECLARE
    t name;
BEGIN
    FOR t IN SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = 'sandbox_' || p_sandbox_id
    LOOP
        table_name := t;
        EXECUTE format('SELECT count(*) FROM %I.%I', 'sandbox_' || p_sandbox_id, t) INTO row_count;
        RETURN NEXT;
    END LOOP;
END
$function$;
