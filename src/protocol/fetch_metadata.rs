//! fetch_metadata
