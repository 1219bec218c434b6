//! Keeps a session's access token fresh, with one refresh at a time.
