-- A page of events is found by its first id, however many events are kept.

CREATE INDEX events_listed ON events (application, id);
