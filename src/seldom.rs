//! What is said once in a while, however often it happens.
//!
//! Stands on the ground floor. A fault that meets every request (a proxy that is set up wrongly, a store that is slow)
//! is told to the operator in one line now and then, with how often it was passed over meanwhile, so that neither a fault
//! nor a stranger can fill the log.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// One thing to say.
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    said: Mutex<Said>,
}

#[derive(Debug)]
struct Said {
    last: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// Something that is said at most once in this span; [`Duration::MAX`]: once in the life of the process.
    #[must_use]
    pub const fn every(span: Duration) -> Self {
        Self {
            every: span,
            said: Mutex::new(Said {
                last: None,
                unsaid: 0,
            }),
        }
    }

    /// It happened. `Some`: say it now, and how many times it was passed over since it was said last.
    pub fn due(&self) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.last.is_some_and(|last| last.elapsed() < self.every) {
            said.unsaid = said.unsaid.saturating_add(1);
            return None;
        }
        said.last = Some(Instant::now());
        Some(std::mem::take(&mut said.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_said_at_once_then_seldom_and_with_the_number_of_times_between() {
        let minute = Seldom::every(Duration::from_mins(1));
        assert_eq!(minute.due(), Some(0));
        assert_eq!((minute.due(), minute.due()), (None, None));
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!((minute.due(), minute.due()), (Some(2), None));
        let once = Seldom::every(Duration::MAX);
        assert_eq!(once.due(), Some(0));
        tokio::time::advance(Duration::from_hours(24)).await;
        assert_eq!(once.due(), None);
    }
}
