//! return_to
