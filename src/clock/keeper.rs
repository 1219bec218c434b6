//! How the process's time follows the system's clock, and when there is something to say about that.
//!
//! Pure but for [`Keeper::look`], which reads the clocks and moves the time.
//!
//! INVARIANT: a look moves the time by at most 1 % of what passed since the look before, whatever the system's clock did.

use super::{OFFSET, Reading};
use std::sync::atomic::Ordering;

/// The time is moved by at most one part in so many of what passed.
const SHARE: i64 = 100;
/// A difference that is worth an error, milliseconds.
const APART: i64 = 5_000;
/// A difference that is none any more, milliseconds.
const TOGETHER: i64 = 1_000;

/// Follows the system's clock, look by look.
#[derive(Debug)]
pub struct Keeper {
    /// As `OFFSET`.
    offset: i64,
    /// The clock since boot at the last look.
    boot: i64,
    /// What the system's clock was ahead of the clock since boot when its difference was told; none while they agree. A
    /// step changes that, and following does not.
    told: Option<i64>,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// What the system's clock is ahead of the process's time, seconds; behind: below zero.
    pub ahead_secs: f64,
    /// What there is to say.
    pub notice: Option<Notice>,
}

/// Something to say, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The system's clock was set, and is more than five seconds away.
    Set,
    /// It was, and is less than a second away again.
    Agrees,
}

impl Keeper {
    /// The keeper of this process's time: one is enough.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::new(OFFSET.load(Ordering::Relaxed), super::since_boot())
    }

    fn new(offset: i64, boot: i64) -> Self {
        Self {
            offset,
            boot,
            told: None,
        }
    }

    /// Looks at the system's clock, and moves the process's time towards it.
    pub fn look(&mut self) -> Look {
        // It may have been set meanwhile, by who heard a third clock.
        let before = OFFSET.load(Ordering::Relaxed);
        self.offset = before;
        let look = self.follow(Reading::take());
        OFFSET.fetch_add(self.offset.saturating_sub(before), Ordering::Relaxed);
        look
    }

    fn follow(&mut self, reading: Reading) -> Look {
        let most = reading.boot.saturating_sub(self.boot).max(0) / SHARE;
        self.boot = reading.boot;
        let moved = reading.offset().saturating_sub(self.offset).clamp(-most, most);
        self.offset = self.offset.saturating_add(moved);
        let ahead = reading.offset().saturating_sub(self.offset);
        #[expect(
            clippy::cast_precision_loss,
            reason = "milliseconds are exact for longer than computers exist"
        )]
        let ahead_secs = ahead as f64 / 1000.0;
        Look {
            ahead_secs,
            notice: self.notice(ahead, reading.offset()),
        }
    }

    fn notice(&mut self, ahead: i64, set_to: i64) -> Option<Notice> {
        let is_news = self
            .told
            .is_none_or(|told| set_to.abs_diff(told) > APART.unsigned_abs());
        if ahead.unsigned_abs() > APART.unsigned_abs() && is_news {
            self.told = Some(set_to);
            return Some(Notice::Set);
        }
        if ahead.unsigned_abs() < TOGETHER.unsigned_abs() && self.told.take().is_some() {
            return Some(Notice::Agrees);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const START: i64 = 1_800_000_000_000;

    /// A machine whose clocks are moved by hand.
    struct Machine {
        keeper: Keeper,
        boot: i64,
        wall: i64,
    }

    impl Machine {
        fn new() -> Self {
            let (boot, wall) = (7 * HOUR, START);
            Self {
                keeper: Keeper::new(wall - boot, boot),
                boot,
                wall,
            }
        }

        fn kept(&self) -> i64 {
            self.boot + self.keeper.offset
        }

        /// Time passes with a look a second; what was said.
        fn pass(&mut self, seconds: i64) -> Vec<Notice> {
            let looks = (0..seconds).map(|_| {
                (self.boot, self.wall) = (self.boot + 1000, self.wall + 1000);
                self.look().notice
            });
            looks.collect::<Vec<_>>().into_iter().flatten().collect()
        }

        fn look(&mut self) -> Look {
            let (wall, boot) = (self.wall, self.boot);
            self.keeper.follow(Reading { wall, boot })
        }
    }

    #[test]
    fn rf_17_a_step_of_an_hour_moves_the_time_by_no_more_than_a_hundredth_of_what_passes() {
        for step in [HOUR, -HOUR, 24 * 365 * HOUR, -START, i64::MAX / 2] {
            let mut machine = Machine::new();
            machine.wall += step;
            let mut before = machine.kept();
            machine.look();
            assert_eq!(machine.kept(), before, "{step}: not at once");
            for _ in 0..1000 {
                machine.pass(1);
                let passed = machine.kept() - before;
                assert!((990..=1010).contains(&passed), "{step}: {passed} ms in a second");
                before = machine.kept();
            }
        }
    }

    #[test]
    fn rf_17_a_step_of_an_hour_is_followed_within_a_hundred_hours() {
        for step in [HOUR, -HOUR] {
            let mut machine = Machine::new();
            machine.wall += step;
            assert_eq!(machine.pass(99 * 3600), [Notice::Set], "{step}");
            assert_ne!(machine.kept(), machine.wall);
            assert_eq!(machine.pass(3600), [Notice::Agrees], "{step}");
            assert_eq!(machine.kept(), machine.wall);
        }
    }

    #[test]
    fn a_drift_is_followed_in_silence() {
        let mut machine = Machine::new();
        for _ in 0..20_000 {
            machine.wall += 9;
            assert_eq!(machine.pass(1), []);
            assert_eq!(machine.kept(), machine.wall);
        }
    }

    #[test]
    fn a_sleep_of_the_machine_is_no_step() {
        let mut machine = Machine::new();
        machine.pass(10);
        (machine.boot, machine.wall) = (machine.boot + 8 * HOUR, machine.wall + 8 * HOUR);
        let look = machine.look();
        assert_eq!((look.ahead_secs, look.notice), (0.0, None));
        assert_eq!(machine.kept(), machine.wall);
    }

    #[test]
    fn a_step_is_told_once_and_again_only_when_the_clock_is_set_anew() {
        let mut machine = Machine::new();
        machine.wall += 4_000;
        assert_eq!(machine.pass(1), [], "too little to tell");
        machine.wall += HOUR;
        assert_eq!(machine.pass(2000), [Notice::Set], "following it is no news");
        machine.wall += 4_000;
        assert_eq!(machine.pass(100), [], "much the same");
        machine.wall -= 2 * HOUR;
        assert_eq!(machine.pass(100), [Notice::Set]);
        machine.wall += HOUR;
        // What was followed meanwhile is now too much.
        assert_eq!(machine.pass(1), [Notice::Set]);
        assert_eq!(machine.pass(3600), [Notice::Agrees]);
        machine.wall -= 6_000;
        assert_eq!(machine.pass(1), [Notice::Set], "and from the beginning");
        machine.wall += 6_000;
        assert_eq!(machine.pass(1), [Notice::Agrees]);
    }

    #[test]
    fn the_difference_is_that_of_the_system_to_the_time_kept() {
        let mut machine = Machine::new();
        machine.wall += HOUR;
        assert!((machine.look().ahead_secs - 3600.0).abs() < 1e-9);
        machine.pass(1000);
        assert!((machine.look().ahead_secs - 3590.0).abs() < 1e-9);
        machine.wall -= 2 * HOUR;
        assert!((machine.look().ahead_secs + 3610.0).abs() < 1e-9);
    }

    #[test]
    fn the_time_of_this_process_is_the_systems() {
        use crate::clock::{Clock, UnixTime};
        let (kept, system) = (Clock::System.now(), UnixTime::of_the_system());
        assert!(
            kept.as_millis().abs_diff(system.as_millis()) < 5_000,
            "{kept:?} {system:?}"
        );
        let mut keeper = Keeper::of_this_process();
        assert!(keeper.look().ahead_secs.abs() < 5.0);
        assert!(Clock::System.now() >= kept.minus(std::time::Duration::from_millis(20)));
    }
}
