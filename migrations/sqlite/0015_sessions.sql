-- Admins who are logged in to the pages. Rows say nothing to whoever reads them: the cookie itself is not here, and neither
-- is the token that it was made with.
create table admin_session (
    -- The SHA-256 of the cookie's value.
    id          text primary key not null,
    -- Shows, together with the cookie, with which token the session was made: one that is no longer configured ends it.
    token_proof text not null,
    created_at  integer not null,
    expires_at  integer not null
) strict;
