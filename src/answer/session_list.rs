//! What sessions and their ends look like in a list: to administrators (`admin`) and to the users themselves (`bff`).
//!
//! INVARIANT: never a token and never cookie bits: a session is named by its reference.

use crate::session::{Listed, Sessions};
use serde_json::{Map, Value};

/// What every list shows of a session: `reference`, `provider`, `begun` and `absolute_end` (Unix time, seconds).
#[must_use]
pub fn listed(sessions: &Sessions, one: &Listed) -> Map<String, Value> {
    let shown: [(&str, Value); 4] = [
        ("reference", one.reference().to_string().into()),
        ("provider", one.provider.clone().into()),
        ("begun", one.begun.as_secs().into()),
        ("absolute_end", sessions.absolute_end(one).as_secs().into()),
    ];
    shown
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// What a `logout_incomplete` says where several sessions were to end: this replica does what it can (contract 3.8).
#[must_use]
pub fn incomplete_ends(ended: usize, unconfirmed: usize) -> String {
    format!(
        "The session store does not answer. {ended} ended; {unconfirmed} not confirmed: this replica refuses what is not \
         confirmed from now on, and repeats the delete until the store does."
    )
}
