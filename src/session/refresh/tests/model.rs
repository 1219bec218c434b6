//! Every interleaving of two replicas over the real code, as far as the bounds below reach.
//!
//! Two `Sessions` share a store and a provider that rotates refresh tokens and ends a grant whose token comes twice. Each
//! store operation and each call to the provider waits at a gate, and an explorer decides which of those that wait goes
//! on, or what goes wrong instead. It goes through all choices depth first, beginning anew for each: the way to a state is
//! the list of choices that led there. States that look alike (the same record, lease and grant, and everybody has done
//! the same steps and seen the same of them) are gone on from once, for what follows is the same.
//!
//! Bounds: as many faults as the scenario says; time passes by [`TICK`], while somebody could also go on at most [`TICKS`]
//! times; no more than [`MOST`] schedules (a scenario that needs more fails).

use super::*;
use crate::config::SessionSettings;
use crate::protocol::id_token::IdTokenClaims;
use crate::protocol::token_response::TokenResponse;
use crate::secret::{AccessToken, IdToken, RefreshToken};
use crate::session::testing::key_ring;
use crate::store::testing::Gate;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

/// How long time passes at once: longer than the pauses between looks at what another replica does.
const TICK: Duration = Duration::from_millis(250);
/// How often time passes although somebody could go on.
const TICKS: usize = 1;
/// The most schedules of one scenario.
const MOST: usize = 50_000;
/// How long nobody may be waiting: 10 s for a refresh, and then some.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often everybody who can run is let run, until all wait again: the longest chain, from a step to a task that it
/// begins, to who waits for that, takes four.
const YIELDS: usize = 8;

/// The step from the provider's doing to its answer.
const HEAR: &str = "hear the answer";

/// Who acts. A refreshes on one replica, all others are on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Actor {
    RefreshA,
    RefreshB,
    Touch,
    Logout,
}

use Actor::{Logout, RefreshA, RefreshB, Touch};

/// What the explorer decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Choice {
    /// The first of this actor's steps that wait goes on.
    Step(Actor),
    /// It is done, and its answer is lost.
    Lose(Actor),
    /// Replica A dies.
    Crash,
    /// The lease ends under its holder.
    EndLease,
    /// Time passes.
    Tick,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Crash,
    EndLease,
    /// The provider's answer is lost after it has rotated the token.
    LoseAnswer,
    /// The answer to a write or a lease is lost.
    LoseWrite,
}

/// How an actor's doing ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Outcome {
    /// It may go on with this access token.
    Token(String),
    Ended,
    ProviderAway,
    StoreAway,
    /// The use was noted at that moment; `None`: there was no session.
    Noted(Option<u64>),
    /// The session is gone.
    LoggedOut,
}

/// A step that waits.
struct Step {
    actor: Actor,
    what: &'static str,
    go: oneshot::Sender<Option<Fails>>,
}

/// Where the steps of all wait.
#[derive(Default)]
struct Gates {
    open: AtomicBool,
    state: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    steps: Vec<Step>,
    tasks: HashMap<tokio::task::Id, Actor>,
    /// Who was let go on last: a task that appears is this one's.
    running: Option<Actor>,
}

impl std::fmt::Debug for Gates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gates")
    }
}

impl Gates {
    /// The actor whose task this is; `None`: the explorer itself.
    fn actor(&self) -> Option<Actor> {
        let task = tokio::task::try_id()?;
        let mut state = self.state.lock().unwrap();
        let running = state.running.expect("somebody was let run");
        Some(*state.tasks.entry(task).or_insert(running))
    }

    async fn wait(&self, what: &'static str) -> Option<Fails> {
        let actor = self.actor()?;
        if self.open.load(Ordering::Relaxed) {
            return None;
        }
        let (go, gone) = oneshot::channel();
        self.state.lock().unwrap().steps.push(Step { actor, what, go });
        match gone.await {
            Ok(how) => how,
            Err(_) => std::future::pending().await,
        }
    }

    /// What waits, in the actors' order: the first step of each.
    fn waiting(&self) -> BTreeMap<Actor, &'static str> {
        let state = self.state.lock().unwrap();
        let mut first = BTreeMap::new();
        for step in &state.steps {
            first.entry(step.actor).or_insert(step.what);
        }
        first
    }

    fn let_go(&self, actor: Actor, how: Option<Fails>) {
        let mut state = self.state.lock().unwrap();
        let at = state.steps.iter().position(|step| step.actor == actor);
        let step = state.steps.remove(at.expect("a step of its"));
        state.running = Some(actor);
        let _crashed = step.go.send(how);
    }
}

impl Gate for Gates {
    fn pass(&self, operation: &'static str) -> Pin<Box<dyn Future<Output = Option<Fails>> + Send + '_>> {
        Box::pin(self.wait(operation))
    }
}

/// What the provider knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Grant {
    /// The number of the refresh token that is good.
    current: u32,
    /// A token came twice.
    ended: bool,
    /// Which token was shown by whom, in order.
    shown: Vec<(u32, Option<Actor>)>,
    refusals: u32,
}

/// A replica's way to it.
#[derive(Debug)]
struct Provider {
    grant: Arc<Mutex<Grant>>,
    gates: Arc<Gates>,
}

impl RefreshAt for Provider {
    fn name(&self) -> &'static str {
        "main"
    }

    fn issuer(&self) -> &'static str {
        "https://id.example.com"
    }

    fn client_id(&self) -> &'static str {
        "app"
    }

    fn asks_userinfo(&self) -> bool {
        false
    }

    fn refresh<'a>(&'a self, token: &'a RefreshToken) -> Asking<'a, Result<TokenResponse, TokenError>> {
        Box::pin(async move {
            self.gates.wait("show the token").await;
            let number = number(token.expose());
            let answer = {
                let mut grant = self.grant.lock().unwrap();
                let by = self.gates.actor();
                grant.shown.push((number, by));
                if grant.ended || number != grant.current {
                    grant.ended = true;
                    grant.refusals += 1;
                    Err(TokenError::InvalidGrant)
                } else {
                    grant.current += 1;
                    Ok(TokenResponse {
                        access_token: AccessToken::new(format!("access-{}", grant.current)),
                        refresh_token: Some(RefreshToken::new(format!("refresh-{}", grant.current))),
                        id_token: None,
                        expires_in: LIFETIME,
                        scope: None,
                    })
                }
            };
            match self.gates.wait(HEAR).await {
                None => answer,
                Some(_) => Err(TokenError::NoAnswer {
                    unreadable: false,
                    reason: "lost".into(),
                    retry_after: None,
                }),
            }
        })
    }

    fn verify_refreshed<'a>(
        &'a self,
        _: &'a IdToken,
        _: &'a str,
    ) -> Asking<'a, Result<IdTokenClaims, ProviderError>> {
        unreachable!("there are no ID tokens")
    }

    fn userinfo<'a>(
        &'a self,
        _: &'a AccessToken,
        _: &'a str,
    ) -> Asking<'a, Result<Map<String, Value>, ProviderError>> {
        unreachable!("it is not asked")
    }

    fn revoke<'a>(&'a self, _: Option<&'a RefreshToken>, _: Option<&'a AccessToken>) -> Asking<'a, ()> {
        Box::pin(async {})
    }
}

/// The number at a token's end.
fn number(token: &str) -> u32 {
    token.rsplit('-').next().unwrap().parse().unwrap()
}

/// The session's record, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Seen {
    version: u64,
    access: u32,
    refresh: u32,
    used: u64,
    /// What else changes: the token's end, how often the refresh token was shown, when last, and whether that call is under
    /// way as far as anybody knows; whether it is unconfirmed.
    rest: (u64, u32, Option<(u64, bool)>, bool),
}

/// What is checked of one run from beginning to end.
struct Scenario<'a> {
    actors: &'a [Actor],
    faults: &'a [Fault],
    most_faults: usize,
}

impl Scenario<'_> {
    /// Whether nothing would change if both replicas changed their names.
    fn is_symmetric(&self) -> bool {
        self.actors == [RefreshA, RefreshB] && !self.faults.contains(&Fault::Crash)
    }
}

/// One run.
struct Run<'a> {
    scenario: &'a Scenario<'a>,
    clock: Clock,
    gates: Arc<Gates>,
    grant: Arc<Mutex<Grant>>,
    store: Arc<Store>,
    observer: Arc<Sessions>,
    id: SessionId,
    outcomes: Arc<Mutex<BTreeMap<Actor, Outcome>>>,
    histories: BTreeMap<Actor, u64>,
    owners: HashMap<Vec<u8>, Option<Actor>>,
    crashed: bool,
    faults: Vec<Choice>,
    /// Whether anybody has done a step.
    has_begun: bool,
    /// Whether something happened after which nobody can know what became of a refresh token.
    is_token_lost: bool,
    ticks: usize,
    /// How long time passed because nobody could go on.
    hung: Duration,
    /// The record that was opened last, sealed and open.
    opened: Option<(bytes::Bytes, Seen)>,
    /// The record after the last step.
    before: Option<Seen>,
}

fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

impl<'a> Run<'a> {
    async fn begin(scenario: &'a Scenario<'a>) -> Self {
        let clock = Clock::manual(BEGIN);
        let gates: Arc<Gates> = Arc::default();
        let grant: Arc<Mutex<Grant>> = Arc::default();
        let store = Arc::new(Store::memory(10, clock.clone()));
        let tasks = TaskTracker::new();
        let keys = Arc::new(key_ring("https://app.example.com", 1));
        let settings = SessionSettings {
            cache: crate::config::Cache::Off(crate::config::Off::Off),
            ..SessionSettings::default()
        };
        let replica = || {
            let provider = Arc::new(Provider {
                grant: Arc::clone(&grant),
                gates: Arc::clone(&gates),
            });
            Arc::new(Sessions::new(
                Arc::clone(&store),
                Arc::clone(&keys),
                &settings,
                &[provider],
                clock.clone(),
                tasks.clone(),
                Arc::default(),
            ))
        };
        let (observer, a, b) = (replica(), replica(), replica());
        let (id, session) = observer.begin(new_session(&clock)).await.unwrap();
        clock.advance(LIFETIME);
        store.outage.guard(Arc::clone(&gates) as Arc<dyn Gate>);
        let mut run = Self {
            scenario,
            clock,
            gates,
            grant,
            store,
            observer,
            id,
            outcomes: Arc::default(),
            histories: BTreeMap::new(),
            owners: HashMap::new(),
            crashed: false,
            faults: Vec::new(),
            has_begun: false,
            is_token_lost: false,
            ticks: 0,
            hung: Duration::ZERO,
            opened: None,
            before: None,
        };
        run.before = run.seen().await;
        for actor in scenario.actors {
            let sessions = if *actor == RefreshA { &a } else { &b };
            run.start(*actor, sessions, &session, &tasks).await;
        }
        run
    }

    async fn start(&self, actor: Actor, sessions: &Arc<Sessions>, session: &Session, tasks: &TaskTracker) {
        self.gates.state.lock().unwrap().running = Some(actor);
        let (sessions, id, session) = (Arc::clone(sessions), self.id.clone(), session.clone());
        let outcomes = Arc::clone(&self.outcomes);
        tasks.spawn(async move {
            let outcome = act(actor, &sessions, &id, &session).await;
            outcomes.lock().unwrap().insert(actor, outcome);
        });
        settle().await;
    }

    async fn seen(&mut self) -> Option<Seen> {
        let key = self.observer.key(Kind::Session, self.id.store_key());
        let sealed = self.store.read(key).await.unwrap()?.sealed;
        if let Some((same, seen)) = &self.opened
            && *same == sealed
        {
            return Some(seen.clone());
        }
        let seen = self.open().await?;
        self.opened = Some((sealed, seen.clone()));
        Some(seen)
    }

    async fn open(&self) -> Option<Seen> {
        let opened = self.observer.read(&self.id).await.unwrap()?;
        let tokens = &opened.payload.tokens;
        Some(Seen {
            version: opened.version,
            access: number(tokens.access_token.expose()),
            refresh: number(tokens.refresh_token.as_ref().unwrap().expose()),
            used: opened.payload.used.as_millis(),
            rest: (
                tokens.expires.as_millis(),
                opened.payload.shown,
                (opened.payload.showing).map(|last| (last.at.as_millis(), last.by.is_some())),
                opened.payload.unconfirmed,
            ),
        })
    }

    fn lock(&self) -> StoreKey {
        self.observer.key(Kind::RefreshLock, self.id.store_key())
    }

    /// Whose the lease is. `None`: nobody's.
    async fn holder(&mut self) -> Option<Option<Actor>> {
        let lease = self.store.read(self.lock()).await.unwrap()?;
        let running = self.gates.state.lock().unwrap().running;
        let owner = self.owners.entry(lease.sealed.to_vec()).or_insert(running);
        Some(*owner)
    }

    /// Those who wait and can be let go on.
    fn waiting(&self) -> BTreeMap<Actor, &'static str> {
        let mut waiting = self.gates.waiting();
        if self.crashed {
            waiting.remove(&RefreshA);
        }
        waiting
    }

    /// Those who are not done, and wait for time to pass or for others.
    fn has_idle(&self, waiting: &BTreeMap<Actor, &'static str>) -> bool {
        let outcomes = self.outcomes.lock().unwrap();
        let is_done = |actor: &Actor| outcomes.contains_key(actor) || self.crashed && *actor == RefreshA;
        let mut actors = self.scenario.actors.iter();
        actors.any(|actor| !is_done(actor) && !waiting.contains_key(actor))
    }

    async fn choices(&mut self) -> Vec<Choice> {
        let mut waiting = self.waiting();
        // Of two that are alike in all, one is as good as the other to go first.
        if self.scenario.is_symmetric() && !self.has_begun {
            waiting.remove(&RefreshB);
        }
        let mut choices: Vec<_> = waiting.keys().copied().map(Choice::Step).collect();
        if self.faults.len() < self.scenario.most_faults {
            for fault in self.scenario.faults {
                match fault {
                    Fault::Crash if waiting.contains_key(&RefreshA) => choices.push(Choice::Crash),
                    Fault::EndLease if self.holder().await.is_some() => choices.push(Choice::EndLease),
                    Fault::Crash | Fault::EndLease => {}
                    Fault::LoseAnswer | Fault::LoseWrite => {
                        let lost = waiting.iter().filter(|(_, what)| match fault {
                            Fault::LoseAnswer => **what == HEAR,
                            _ => matches!(**what, "replace" | "claim" | "release"),
                        });
                        choices.extend(lost.map(|(actor, _)| Choice::Lose(*actor)));
                    }
                }
            }
        }
        if !choices.is_empty() && self.ticks < TICKS && self.has_idle(&waiting) {
            choices.push(Choice::Tick);
        }
        choices
    }

    /// What everybody will have done and seen once this choice is taken.
    async fn histories_after(&mut self, choice: Choice) -> BTreeMap<Actor, u64> {
        let mut histories = self.histories.clone();
        if let Choice::Step(actor) | Choice::Lose(actor) = choice {
            let (what, holder) = (self.waiting()[&actor], self.holder().await);
            // Only what the answer depends on: who is told the same goes on in the same way.
            let seen = match what {
                "claim" => hash(holder.is_some()),
                "renew" | "release" => hash(holder == Some(Some(actor))),
                "replace" => hash(self.before.as_ref().map(|seen| seen.version)),
                "show the token" => {
                    let grant = self.grant.lock().unwrap();
                    hash((grant.current, grant.ended))
                }
                HEAR => 0,
                _ => hash(&self.before),
            };
            // Who has asked for the lease in vain, or reads the record to note a use once more, is where it was when it
            // did so the first time.
            let waits = what == "claim" && holder.is_some() && !self.faults.contains(&Choice::Lose(actor));
            let anew = waits || actor == Touch && what == "read";
            let history = histories.entry(actor).or_default();
            *history = hash((if anew { 0 } else { *history }, choice, what, seen));
        }
        histories
    }

    async fn take(&mut self, choice: Choice) {
        match choice {
            Choice::Step(actor) | Choice::Lose(actor) => {
                let lost = matches!(choice, Choice::Lose(_));
                self.has_begun = true;
                self.is_token_lost |= lost && self.waiting()[&actor] == HEAR;
                self.gates.let_go(actor, lost.then_some(Fails::After));
            }
            Choice::Crash => (self.crashed, self.is_token_lost) = (true, true),
            Choice::EndLease => {
                self.store.delete(self.lock()).await.unwrap();
            }
            Choice::Tick => {
                self.ticks += 1;
                self.tick().await;
            }
        }
        if !matches!(choice, Choice::Step(_) | Choice::Tick) {
            self.faults.push(choice);
        }
        settle().await;
    }

    async fn tick(&self) {
        self.clock.advance(TICK);
        sleep(TICK).await;
    }

    /// What can be told of the state from without; what follows depends on nothing else.
    async fn fingerprint(&mut self) -> u64 {
        let holder = self.holder().await;
        let grant = self.grant.lock().unwrap().clone();
        let outcomes = self.outcomes.lock().unwrap().clone();
        let waiting = self.waiting();
        let own = (
            self.crashed,
            self.is_token_lost,
            self.ticks,
            self.hung,
            self.faults.len(),
        );
        hash((
            &self.before,
            holder,
            grant,
            outcomes,
            waiting,
            &self.histories,
            own,
        ))
    }

    /// What holds after every step.
    async fn check_step(&mut self) -> Result<(), String> {
        let after = self.seen().await;
        if let (Some(before), Some(after)) = (&self.before, &after) {
            if after.version < before.version || after.version == before.version && after != before {
                return Err(format!("a write without a version: {before:?} → {after:?}"));
            }
            if after.access < before.access || after.refresh < before.refresh {
                return Err(format!("an older write won: {before:?} → {after:?}"));
            }
            if after.used < before.used {
                return Err(format!("a use was forgotten: {before:?} → {after:?}"));
            }
        }
        if self.before.is_none() && after.is_some() {
            return Err("a session that was gone came back".into());
        }
        for (actor, outcome) in &*self.outcomes.lock().unwrap() {
            match outcome {
                Outcome::Token(token) if after.as_ref().is_some_and(|seen| seen.access < number(token)) => {
                    return Err(format!(
                        "{actor:?} has {token}, and the store does not: {after:?}"
                    ));
                }
                Outcome::LoggedOut if after.is_some() => return Err("a logout did not last".into()),
                Outcome::Noted(Some(at)) if after.as_ref().is_some_and(|seen| seen.used < *at) => {
                    return Err("a use that was noted is lost".into());
                }
                _ => {}
            }
        }
        if after.is_none() && self.before.is_some() {
            let refused = self.grant.lock().unwrap().refusals > 0;
            if !refused && !self.scenario.actors.contains(&Logout) {
                return Err("the session ended without invalid_grant".into());
            }
        }
        self.before = after;
        Ok(())
    }

    /// What holds when everybody is done.
    async fn check_end(&mut self) -> Result<(), String> {
        let outcomes = self.outcomes.lock().unwrap().clone();
        let grant = self.grant.lock().unwrap().clone();
        let mut times: BTreeMap<u32, usize> = BTreeMap::new();
        for (token, _) in &grant.shown {
            *times.entry(*token).or_default() += 1;
        }
        let twice = times.values().any(|times| *times > 1);
        let excused = self.faults.iter().any(|fault| *fault != Choice::Tick);
        // A lease that was lost is no excuse, nor is an answer of the store's.
        if (twice || grant.ended) && !self.is_token_lost {
            return Err(format!(
                "a refresh token was shown twice for no reason: {grant:?}"
            ));
        }
        if grant.shown.len() > 1 && !excused {
            return Err(format!("who came late refreshed again: {grant:?}"));
        }
        let logs_out = outcomes.contains_key(&Logout);
        for (actor, outcome) in &outcomes {
            let fine = match outcome {
                Outcome::Token(_) | Outcome::Noted(Some(_)) | Outcome::LoggedOut => true,
                Outcome::Ended | Outcome::Noted(None) => logs_out || grant.refusals > 0,
                Outcome::ProviderAway | Outcome::StoreAway => excused,
            };
            if !fine {
                return Err(format!("{actor:?} ended with {outcome:?}"));
            }
        }
        // What becomes of the session once all is well again.
        self.gates.open.store(true, Ordering::Relaxed);
        self.clock.advance(PATIENCE);
        sleep(PATIENCE).await;
        let Some(session) = self.observer.look_up(&self.id).await.unwrap() else {
            return Ok(());
        };
        if logs_out {
            return Err("a session that was logged out lives".into());
        }
        // Who waited longer than its request may have refreshed meanwhile.
        let grant = self.grant.lock().unwrap().clone();
        let fresh = self.observer.fresh(&self.id, &session).await;
        match fresh {
            Ok(Some(session)) if number(session.tokens.access_token.expose()) == grant.current + 1 => Ok(()),
            Ok(None) if number(session.tokens.access_token.expose()) == grant.current => Ok(()),
            Err(FreshError::Ended(_)) if excused => Ok(()),
            other => Err(format!(
                "in the end there is {other:?} of {session:?}, and at the provider {grant:?}"
            )),
        }
    }
}

async fn act(actor: Actor, sessions: &Arc<Sessions>, id: &SessionId, session: &Session) -> Outcome {
    match actor {
        RefreshA | RefreshB => match sessions.fresh(id, session).await {
            Ok(landed) => Outcome::Token(token(landed.as_deref().unwrap_or(session))),
            Err(FreshError::Ended(_)) => Outcome::Ended,
            Err(FreshError::ProviderAway) => Outcome::ProviderAway,
            Err(FreshError::Session(_)) => Outcome::StoreAway,
        },
        Touch => match sessions.extend(id).await {
            Ok(session) => Outcome::Noted(session.map(|session| session.used.as_millis())),
            Err(_) => Outcome::StoreAway,
        },
        Logout => match sessions.end(id.store_key()).await {
            Ok(_) => Outcome::LoggedOut,
            Err(_) => Outcome::StoreAway,
        },
    }
}

/// Lets everybody run until all wait.
async fn settle() {
    for _ in 0..YIELDS {
        tokio::task::yield_now().await;
    }
}

/// What exploring a scenario came to.
#[derive(Debug, Default)]
struct Explored {
    schedules: usize,
    states: HashSet<u64>,
    /// The first thing that does not hold, and the way there.
    violation: Option<String>,
}

/// Choices that lead somewhere new, and what everybody has done and seen after them.
#[derive(Default)]
struct Way {
    choices: Vec<Choice>,
    histories: BTreeMap<Actor, u64>,
}

fn explore(scenario: &Scenario<'_>) -> Explored {
    let mut explored = Explored::default();
    let mut ways = vec![Way::default()];
    while let Some(way) = ways.pop() {
        assert!(explored.schedules < MOST, "more than {MOST} schedules");
        explored.schedules += 1;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let broken = runtime.block_on(walk(scenario, way, &mut explored.states, &mut ways));
        if broken.is_err() {
            explored.violation = broken.err();
            break;
        }
    }
    explored
}

/// Goes one way, and from its end always on by the first choice; the others are left for later. The error: what does not
/// hold, and the way there.
async fn walk(
    scenario: &Scenario<'_>,
    way: Way,
    states: &mut HashSet<u64>,
    ways: &mut Vec<Way>,
) -> Result<(), String> {
    let mut run = Run::begin(scenario).await;
    let (mut gone, mut story) = (Vec::new(), String::new());
    loop {
        if gone.len() == way.choices.len() {
            run.histories.clone_from(&way.histories);
        }
        let is_new = gone.len() >= way.choices.len();
        if is_new && !states.insert(run.fingerprint().await) {
            return Ok(());
        }
        let choices = run.choices().await;
        let waiting = run.waiting();
        if choices.is_empty() && !run.has_idle(&waiting) {
            return run.check_end().await.map_err(|what| what + &story);
        }
        if let Some(first) = choices.first().copied() {
            let choice = way.choices.get(gone.len()).copied().unwrap_or(first);
            assert!(
                choices.contains(&choice),
                "not the same as before: {choice:?} of {choices:?}"
            );
            if is_new {
                for other in &choices[1..] {
                    let histories = run.histories_after(*other).await;
                    let choices = [&gone[..], &[*other]].concat();
                    ways.push(Way { choices, histories });
                }
                run.histories = run.histories_after(choice).await;
            }
            gone.push(choice);
            write!(story, "\n  {choice:?} of {waiting:?}").unwrap();
            run.take(choice).await;
        } else {
            // There is nothing to decide: time passes.
            run.hung += TICK;
            run.tick().await;
            settle().await;
        }
        // Nothing new is to be seen before the end of a way that was gone already.
        if gone.len() + 1 == way.choices.len() {
            run.before = run.seen().await;
        } else if gone.len() >= way.choices.len() {
            run.check_step().await.map_err(|what| what + &story)?;
        }
        if run.hung > PATIENCE {
            return Err(format!("somebody waits without end{story}"));
        }
    }
}

const ALL_FAULTS: &[Fault] = &[Fault::Crash, Fault::EndLease, Fault::LoseAnswer, Fault::LoseWrite];

fn holds(actors: &[Actor], faults: &[Fault], most_faults: usize) {
    let scenario = Scenario {
        actors,
        faults,
        most_faults,
    };
    let begun = std::time::Instant::now();
    let explored = explore(&scenario);
    println!(
        "{actors:?}, {most_faults} of {faults:?}: {} schedules (of {MOST} at most), {} states, {} ms",
        explored.schedules,
        explored.states.len(),
        begun.elapsed().as_millis()
    );
    assert_eq!(explored.violation.as_deref(), None, "{actors:?} {faults:?}");
}

#[test]
fn rf_02_in_every_interleaving_two_replicas_refresh_once() {
    holds(&[RefreshA, RefreshB], &[], 0);
}

#[test]
fn rf_03_fa_03_in_every_interleaving_with_one_fault_no_token_is_used_twice_unless_its_fate_is_unknown() {
    holds(&[RefreshA, RefreshB], ALL_FAULTS, 1);
}

#[test]
fn rf_03_in_every_interleaving_with_lost_leases_and_lost_writes_no_token_is_used_twice() {
    holds(&[RefreshA, RefreshB], &[Fault::EndLease, Fault::LoseWrite], 2);
}

#[test]
fn se_10_in_every_interleaving_two_refreshes_and_a_touch_lose_nothing() {
    holds(&[RefreshA, RefreshB, Touch], &[], 0);
}

#[test]
fn lo_06_in_every_interleaving_a_logout_wins_over_two_refreshes() {
    holds(&[RefreshA, RefreshB, Logout], &[], 0);
}

#[test]
fn lo_06_in_every_interleaving_a_logout_wins_over_a_refresh_a_touch_and_a_fault() {
    holds(
        &[RefreshA, Touch, Logout],
        &[Fault::Crash, Fault::LoseAnswer, Fault::LoseWrite],
        1,
    );
}
