//! What the platform relies on when it calls `/v1`.
