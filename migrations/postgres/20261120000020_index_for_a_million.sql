-- What is asked often costs by what it finds, not by what is stored: measured at 1,000,000 connections.

CREATE INDEX connections_listed ON connections (seller_id, application);
CREATE INDEX connections_status ON connections (status, application);
CREATE INDEX connections_failing ON connections (status, application) WHERE refresh_failures > 0;
CREATE INDEX connections_ending ON connections (access_token_expires_at, application) WHERE status <> 'revoked';
