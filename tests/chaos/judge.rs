//! What happened, held to what was promised. Nothing here knows cloakroom from within: it reads what the provider, the
//! upstream and the browsers saw, and who was killed when.

use crate::api::Seen;
use crate::door::Call;
use crate::fleet::{Death, GaveUp};
use crate::{LEASE, LONGEST_WAIT, Millis, TOKEN, TOLD, TRANSIT};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

/// After a refresh that failed the provider is asked again within this (contract 4.8).
const REST: Millis = 10_000;
/// A store operation, and what begins anew after it, ends within this (contract 4.6).
const STORE: Millis = 3_000;

/// After bad luck on the way to Redis there is a connection again within this.
const RELINK: Millis = 1_000;

/// Between a caller's hanging up and the provider's noticing.
const SLACK: Millis = 2_000;
const DAY: Millis = 86_400_000;

/// How a browser's request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer: status, the problem's code, and whether it had a `Retry-After`.
    Answer(u16, String, bool),
    /// The connection broke, or never was.
    Broke(String),
    /// The browser went away.
    WentAway,
}

impl Outcome {
    pub fn is(&self, wanted: u16) -> bool {
        matches!(self, Self::Answer(status, ..) if *status == wanted)
    }
}

/// A browser's request.
#[derive(Clone, Debug)]
pub struct Visit {
    pub session: String,
    pub replica: usize,
    pub sent: Millis,
    pub ended: Millis,
    pub outcome: Outcome,
}

/// Bad luck on one replica's way to Redis.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub replica: usize,
    pub from: Millis,
    pub until: Millis,
}

/// All that was seen.
#[derive(Default)]
pub struct Evidence {
    pub calls: Vec<Call>,
    pub seen: Vec<Seen>,
    pub visits: Vec<Visit>,
    pub deaths: Vec<Death>,
    pub faults: Vec<Fault>,
    pub gave_up: Vec<GaveUp>,
    /// The longest time for which the machine let nothing of this process run: what it took from everybody is held against
    /// nobody.
    pub stall: Millis,
    /// The sessions that every replica still knew at the end.
    pub alive: BTreeSet<String>,
}

/// What is to be said of it.
pub struct Verdict {
    pub table: String,
    pub violations: Vec<String>,
}

impl Verdict {
    /// The first of each kind: what begins with other words.
    pub fn first_of_each(&self, most: usize) -> String {
        let mut kinds: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for violation in &self.violations {
            let words = violation
                .split_whitespace()
                .filter(|word| word.chars().all(char::is_alphabetic));
            let kind = words.take(3).collect::<Vec<_>>().join(" ");
            kinds.entry(kind).or_default().push(violation);
        }
        let shown = kinds.into_values().flat_map(|kind| kind.into_iter().take(most));
        shown.flat_map(|violation| ["\n", violation]).collect()
    }
}

/// The evidence in the order in which questions are asked of it.
struct Case<'a> {
    evidence: &'a Evidence,
    /// The calls of each session, in order.
    calls: HashMap<&'a str, Vec<&'a Call>>,
    visits: HashMap<&'a str, Vec<&'a Visit>>,
    /// When a token was first shown: refresh tokens to the provider, access tokens to the upstream.
    first_shown: HashMap<&'a str, Millis>,
    violations: Vec<String>,
    counts: BTreeMap<&'static str, usize>,
}

pub fn judge(evidence: &Evidence) -> Verdict {
    let mut case = Case::new(evidence);
    case.judge_presentations();
    case.judge_losses();
    case.judge_tokens_upstream();
    case.judge_answers();
    case.verdict()
}

/// `r2g5` is the fifth process of replica 2.
fn replica_of(process: &str) -> Option<usize> {
    process.strip_prefix('r')?.split('g').next()?.parse().ok()
}

fn short(token: &str) -> &str {
    &token[..token.len().min(6)]
}

impl<'a> Case<'a> {
    fn new(evidence: &'a Evidence) -> Self {
        let issued = evidence.calls.iter().filter(|call| call.renewed());
        let owners: HashMap<&str, &str> = issued
            .filter_map(|call| Some((call.refresh_token.as_deref()?, call.sub.as_deref()?)))
            .collect();
        let mut calls: HashMap<&str, Vec<&Call>> = HashMap::new();
        let mut first_shown = HashMap::new();
        for call in &evidence.calls {
            let presented = call.presented.as_deref();
            if let Some(presented) = presented {
                first_shown.entry(presented).or_insert(call.at);
            }
            let owner = call.sub.as_deref().or_else(|| owners.get(presented?).copied());
            if let Some(owner) = owner {
                calls.entry(owner).or_default().push(call);
            }
        }
        for seen in &evidence.seen {
            first_shown.entry(&seen.token).or_insert(seen.at);
        }
        let mut visits: HashMap<&str, Vec<&Visit>> = HashMap::new();
        for visit in &evidence.visits {
            visits.entry(&visit.session).or_default().push(visit);
        }
        Self {
            evidence,
            calls,
            visits,
            first_shown,
            violations: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn was_dead(&self, by: Option<&str>, at: Millis) -> bool {
        let deaths = &self.evidence.deaths;
        deaths
            .iter()
            .any(|death| Some(death.by.as_str()) == by && death.at <= at)
    }

    /// Whether its caller hung up because the answer was later than anybody waits for it: so says the caller's log.
    fn was_too_late(&self, call: &Call) -> bool {
        let Some(ended) = call.ended else {
            return false;
        };
        let midnight = ended - ended % DAY;
        self.evidence.gave_up.iter().any(|gave_up| {
            call.by.as_deref() == Some(&gave_up.by) && (midnight + gave_up.at).abs_diff(ended) <= SLACK
        })
    }

    /// Whether the replica that made the call may not have been able to ask the store what the answer meant.
    fn could_not_read(&self, call: &Call) -> bool {
        let replica = call.by.as_deref().and_then(replica_of);
        let Some(ended) = call.ended else {
            return false;
        };
        self.evidence.faults.iter().any(|fault| {
            Some(fault.replica) == replica && fault.from <= ended + STORE && fault.until + RELINK >= ended
        })
    }

    /// Whether anybody showed what this call brought, before then.
    fn was_used(&self, call: &Call, before: Millis) -> bool {
        let brought = [&call.refresh_token, &call.access_token];
        brought.into_iter().flatten().any(|token| {
            self.first_shown
                .get(token.as_str())
                .is_some_and(|shown| *shown < before)
        })
    }

    /// No refresh token is shown twice, unless the answer to the first time is lost.
    fn judge_presentations(&mut self) {
        let mut shown: HashMap<&str, Vec<&Call>> = HashMap::new();
        for call in &self.evidence.calls {
            if let Some(token) = &call.presented {
                self.count(if call.renewed() {
                    "refreshes"
                } else {
                    "refreshes that brought nothing"
                });
                shown.entry(token).or_default().push(call);
            }
        }
        for (token, calls) in shown {
            for (n, second) in calls.iter().enumerate() {
                let mut counted = None;
                for first in &calls[..n] {
                    let dead = self.was_dead(first.by.as_deref(), second.at);
                    let under_way = first.ended.is_none_or(|ended| ended > second.at);
                    let wrong = if under_way && !dead {
                        Some("while it was under way")
                    } else if !first.worked {
                        None // it was never looked at
                    } else if first.renewed() && self.was_used(first, second.at) {
                        Some("although its successor had been used")
                    } else if dead {
                        counted = Some("used again: the first answer died with its replica");
                        None
                    } else if !first.renewed() && self.could_not_read(first) {
                        counted = Some("used again: invalid_grant came while the way to Redis was broken");
                        None
                    } else if self.was_too_late(first) {
                        counted = Some("used again: the first answer was too late");
                        None
                    } else if first.delivered {
                        Some("although its answer had arrived")
                    } else {
                        counted = Some("used again: the first answer was lost");
                        None
                    };
                    if let Some(wrong) = wrong {
                        counted = Some("used again, unexplained");
                        let token = short(token);
                        self.violations.push(format!(
                            "refresh token {token}… was used again {wrong}:\n  {first:?}\n  {second:?}"
                        ));
                    }
                }
                if let Some(counted) = counted {
                    self.count(counted);
                }
            }
        }
    }

    /// A session is lost only with an answer that was lost after the token had been rotated.
    fn judge_losses(&mut self) {
        let sessions: Vec<_> = self.visits.keys().copied().collect();
        for session in sessions {
            self.count("sessions");
            let visits = &self.visits[session];
            let refused = visits.iter().filter(|visit| visit.outcome.is(401));
            let Some(over) = refused.map(|visit| visit.ended).min() else {
                if !self.evidence.alive.contains(session) {
                    self.violations
                        .push(format!("session {session} was not back at the end"));
                }
                continue;
            };
            let revived: Vec<_> = visits
                .iter()
                .filter(|visit| visit.sent > over && visit.outcome.is(200))
                .collect();
            if let Some(visit) = revived.first() {
                let text = format!("session {session} came back to life after {over}: {visit:?}");
                self.violations.push(text);
            }
            let calls = self.calls.get(session).cloned().unwrap_or_default();
            let lost = calls.iter().rev().find(|call| {
                let dead = self.was_dead(call.by.as_deref(), over);
                let arrived = call.delivered && !dead && !self.was_too_late(call);
                call.renewed() && !arrived && !self.was_used(call, Millis::MAX)
            });
            let cut_off = lost.is_some_and(|call| call.luck.as_deref() == Some("drop_after"));
            match lost {
                Some(call) if !cut_off && self.was_dead(call.by.as_deref(), over) => {
                    self.count("lost: the answer died with its replica");
                }
                Some(call) if cut_off || !call.delivered && call.luck.as_deref() == Some("too_late") => {
                    self.count("lost: the answer was lost");
                }
                Some(call) if self.was_too_late(call) => self.count("lost: the answer was too late"),
                _ => {
                    self.count("lost: unexplained");
                    let tail: Vec<_> = calls.iter().rev().take(4).collect();
                    self.violations.push(format!(
                        "session {session} was lost at {over} and nothing explains it; its last calls, latest first: {tail:#?}"
                    ));
                }
            }
        }
    }

    /// No dead, foreign or replaced token reaches the upstream.
    fn judge_tokens_upstream(&mut self) {
        let evidence = self.evidence;
        let mut origins: HashMap<&str, (&str, usize, Millis)> = HashMap::new();
        // For each session and each of its tokens: when a later one was first seen.
        let mut replaced: HashMap<&str, Vec<Millis>> = HashMap::new();
        for (session, calls) in &self.calls {
            let tokens: Vec<_> = calls
                .iter()
                .filter(|call| call.renewed())
                .filter_map(|call| Some((call.access_token.as_deref()?, call.issued?)))
                .collect();
            let mut later = vec![Millis::MAX; tokens.len()];
            for n in (1..tokens.len()).rev() {
                let shown = self.first_shown.get(tokens[n].0).copied().unwrap_or(Millis::MAX);
                later[n - 1] = shown.min(later[n]);
            }
            replaced.insert(session, later);
            for (n, (token, issued)) in tokens.into_iter().enumerate() {
                origins.insert(token, (session, n, issued));
            }
        }
        for seen in &evidence.seen {
            self.count("requests at the upstream");
            let Some((session, n, issued)) = origins.get(seen.token.as_str()) else {
                self.violations
                    .push(format!("the provider never issued this: {seen:?}"));
                continue;
            };
            if *session != seen.session {
                self.violations
                    .push(format!("{session}'s token came for another: {seen:?}"));
            }
            let dead_since = seen.at.saturating_sub(issued + TOKEN);
            let latest = self.counts.entry("latest use of a dead token, ms").or_default();
            *latest = (*latest).max(usize::try_from(dead_since).unwrap());
            if dead_since > TRANSIT + evidence.stall {
                self.violations
                    .push(format!("a token dead for {dead_since} ms came up: {seen:?}"));
            }
            let late = seen.sent.saturating_sub(replaced[session][*n]);
            if late > 0 {
                self.count("a replaced token, where its successor had been seen already");
            }
            if late > TOLD + evidence.stall {
                self.violations.push(format!(
                    "a token replaced {late} ms before the request came up: {seen:?}"
                ));
            }
        }
    }

    /// Browsers see nothing that is not explained by what was done to them.
    fn judge_answers(&mut self) {
        let visits = &self.evidence.visits;
        let mut unexplained = Vec::new();
        for visit in visits {
            self.count("requests");
            let wrong = match &visit.outcome {
                Outcome::WentAway => {
                    self.count("requests: went away");
                    continue;
                }
                Outcome::Broke(why) => {
                    self.count("requests: broken");
                    let killed = self.evidence.deaths.iter().any(|death| {
                        let back = death.back.unwrap_or(Millis::MAX);
                        death.replica == visit.replica && death.at <= visit.ended && back >= visit.sent
                    });
                    (!killed).then(|| format!("{why}, from a replica that lived"))
                }
                Outcome::Answer(200, ..) => {
                    self.count("requests: 200");
                    None
                }
                Outcome::Answer(401, ..) => {
                    self.count("requests: 401");
                    None
                }
                Outcome::Answer(503, _, false) => Some("503 without Retry-After".to_owned()),
                Outcome::Answer(503, code, true) => {
                    let cause = self.explain(visit, code);
                    self.count(cause.unwrap_or("requests: 503, unexplained"));
                    if cause.is_none() {
                        unexplained.push(format!(
                            "503 {code} for no reason, after {}: {visit:?}",
                            self.story(&visit.session, visit.ended)
                        ));
                    }
                    None
                }
                Outcome::Answer(status, code, _) => Some(format!("{status} {code}")),
            };
            let took = visit.ended - visit.sent;
            let longest = self.counts.entry("longest wait, ms").or_default();
            *longest = (*longest).max(usize::try_from(took).unwrap());
            if took > LONGEST_WAIT + self.evidence.stall {
                self.violations
                    .push(format!("an answer after {took} ms: {visit:?}"));
            }
            if let Some(wrong) = wrong {
                self.violations.push(format!("{wrong}: {visit:?}"));
            }
        }
        // A machine that has no time makes a store late for nobody's fault; it does not do so often.
        if unexplained.len() * 200 > visits.len() {
            self.violations.extend(unexplained);
        }
    }

    /// Why there was no token, or no store.
    fn explain(&self, visit: &Visit, code: &str) -> Option<&'static str> {
        let evidence = self.evidence;
        if code == "store_unavailable" {
            let fault = evidence.faults.iter().any(|fault| {
                fault.replica == visit.replica
                    && fault.from <= visit.ended
                    && fault.until + STORE >= visit.sent
            });
            return fault.then_some("requests: 503, the way to Redis was broken");
        }
        let calls = self
            .calls
            .get(visit.session.as_str())
            .map_or(&[][..], Vec::as_slice);
        let unlucky = calls.iter().any(|call| {
            let late = self.was_too_late(call) && call.at <= visit.ended + LONGEST_WAIT;
            (late || call.luck.is_some() && call.at <= visit.ended)
                && call.ended.unwrap_or(Millis::MAX).saturating_add(REST) >= visit.sent
        });
        if unlucky {
            return Some("requests: 503, the provider was late or away");
        }
        // A lease that nobody gives back: its holder is dead, or does not know that it has it. Then the replica had been
        // asked for this session, and nobody else could refresh it since.
        let visits = &self.visits[visit.session.as_str()];
        let held = |replica: usize, since: Millis| {
            since <= visit.ended
                && since + LEASE >= visit.sent
                && visits.iter().any(|other| {
                    other.replica == replica && other.sent <= since && other.ended + REST >= since
                })
                && !calls.iter().any(|call| {
                    let before = call.ended.is_some_and(|ended| ended < visit.sent);
                    call.at > since && before && call.renewed() && call.delivered
                })
        };
        if evidence.deaths.iter().any(|death| held(death.replica, death.at)) {
            return Some("requests: 503, a dead replica's lease");
        }
        let cut = evidence
            .faults
            .iter()
            .any(|fault| held(fault.replica, fault.until));
        cut.then_some("requests: 503, a lease behind a broken way to Redis")
    }

    /// What is known of a session's last half minute before then.
    fn story(&self, session: &str, until: Millis) -> String {
        let ago = |at: Millis| format!("{:>6} ms before its end: ", until - at);
        let mut lines = Vec::new();
        for call in self.calls.get(session).into_iter().flatten() {
            lines.push((call.at, format!("{call:?}")));
        }
        for visit in &self.visits[session] {
            lines.push((visit.sent, format!("{visit:?}")));
        }
        for death in &self.evidence.deaths {
            lines.push((death.at, format!("{death:?}")));
        }
        for fault in &self.evidence.faults {
            lines.push((fault.from, format!("{fault:?}")));
        }
        lines.retain(|(at, _)| *at <= until && *at + LEASE + LONGEST_WAIT >= until);
        lines.sort();
        lines
            .into_iter()
            .map(|(at, line)| format!("\n  {}{line}", ago(at)))
            .collect()
    }

    fn verdict(mut self) -> Verdict {
        self.counts.insert("kills", self.evidence.deaths.len());
        self.counts
            .insert("broken ways to Redis", self.evidence.faults.len());
        let refreshes = self.evidence.calls.iter().filter(|call| call.presented.is_some());
        let lost = refreshes.filter(|call| call.renewed() && !call.delivered).count();
        self.counts.insert("lost answers", lost);
        let stall = usize::try_from(self.evidence.stall).unwrap_or(usize::MAX);
        self.counts.insert("longest stall of the machine, ms", stall);
        let mut table = String::new();
        for (what, count) in &self.counts {
            writeln!(table, "{what:<66} {count:>8}").unwrap();
        }
        writeln!(table, "{:<66} {:>8}", "violations", self.violations.len()).unwrap();
        Verdict {
            table,
            violations: self.violations,
        }
    }
}
