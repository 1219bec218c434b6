//! One connection to a Redis server, from its first byte to its last.
//!
//! Both the questions and the server's news of changes (RESP3 pushes, `CLIENT TRACKING … BCAST`) run on it, so they come
//! in the server's order: an answer says that all news from before it has come.
//!
//! INVARIANT: what ends the connection stops its pulse first and then voids everything that was read ([`Changes::note_all`]),
//! so nothing is taken for true that may have changed unheard (contract 4.10).
//!
//! Sources: Redis' documentation of client-side caching (broadcasting mode), RESP3, ROLE.
//!
//! [`Changes::note_all`]: crate::store::changes::Changes::note_all

use super::fault::Fault;
use super::memory::watch_memory;
use super::news::News;
use super::sentinel::Watched;
use super::target::open;
use super::tls::Tls;
use crate::store::PATIENCE;
use crate::store::changes::{Pulse, Source};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionInfo, ErrorKind, FromRedisValue, ProtocolVersion, PushInfo,
    RedisError, ServerErrorKind, Value, cmd, pipe,
};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// How often an idle connection is asked: often enough that the last second always holds an answer (contract 4.10).
/// What stands in between (a NAT, a firewall, a balancer) forgets silent ones, so it keeps those alive as well.
const BEAT: Duration = Duration::from_millis(250);
/// How many commands may wait to be written.
const QUEUE: usize = 1024;

/// A connection that has answered.
pub(super) struct Live {
    connection: MultiplexedConnection,
    /// When it was opened.
    pub(super) since: Instant,
    /// Cancelled when the connection has ended: closed by the server, perhaps while nothing was asked, or found dead.
    closed: CancellationToken,
    /// Or why the server does not tell of changes.
    tracked: Result<Arc<Pulse>, String>,
    /// Where sentinels say who the primary is.
    primary: Option<Arc<Watched>>,
    /// Ends the driver with the last user.
    _driven: DropGuard,
}

/// What a server says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It takes writes.
    Primary,
    /// It repeats another's.
    Replica,
    /// It does not say.
    Untold,
}

type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Live {
    /// Opens a connection, to a server that keeps data (and tells `news`) or to a sentinel.
    pub(super) async fn open(
        info: ConnectionInfo,
        tls: &Tls,
        news: Option<&Arc<News>>,
        primary: Option<Arc<Watched>>,
        drivers: &TaskTracker,
    ) -> Result<Self, Fault> {
        let (mut connection, mut driver, tells) = handshake(&info, tls, news).await?;
        let asked = Instant::now();
        let set_up = async {
            // A stopped server still accepts connections: only an answer shows that it lives.
            let role = match news {
                Some(_) => role(&mut connection).await?,
                None => Role::Untold,
            };
            if role == Role::Untold {
                let pong: Value = cmd("PING").query_async(&mut connection).await?;
                if !matches!(redis::from_redis_value::<String>(pong).as_deref(), Ok("PONG")) {
                    let wrong = format!(
                        "{}: it does not answer like Redis: see what is there",
                        info.addr()
                    );
                    return Err(Fault::said(wrong));
                }
            }
            if primary.is_some() && role == Role::Replica {
                return Err(Fault::said(format!(
                    "{}: it is a replica, and the sentinels call it the primary: a failover is under way",
                    info.addr()
                )));
            }
            // Before anything is asked over this connection: nobody finds a session missing that was lost in a failover.
            if let Some(recent) = news.and_then(|news| news.recent.as_ref()) {
                recent.repeat(&mut connection).await?;
            }
            let tracked = match (news, tells) {
                (Some(news), Ok(())) => track(&mut connection, role, news).await,
                (_, tells) => tells,
            };
            Ok((role, tracked))
        };
        let (role, tracked) = tokio::select! {
            biased;
            done = set_up => done?,
            () = &mut driver => return Err(Fault::said(format!("{}: it closes the connection", info.addr()))),
        };
        if let Some(news) = news {
            // What was read before the server tells of changes is void.
            news.changes.note_all();
        }
        // Long ago, where no majority of sentinels stands behind it.
        let proof = primary
            .as_ref()
            .map_or(Some(asked), |primary| primary.confirmed());
        let proof = proof.unwrap_or_else(|| asked.checked_sub(PATIENCE).unwrap_or(asked));
        let tracked = tracked.map(|()| Pulse::new(proof));
        let (closed, unused) = (CancellationToken::new(), CancellationToken::new());
        let closing = closed.clone().drop_guard();
        let (pulse, watched, letting_go) = (tracked.clone().ok(), primary.clone(), unused.clone());
        let (asking, news) = (connection.clone(), news.cloned());
        drivers.spawn(async move {
            let moved = async {
                match &watched {
                    Some(primary) => primary.until_it_is_another().await,
                    None => std::future::pending().await,
                }
            };
            let memory = async {
                match &news {
                    Some(news) => watch_memory(asking.clone(), news).await,
                    None => std::future::pending().await,
                }
            };
            let untold = async {
                match (&pulse, &news) {
                    (None, Some(news)) => news.of_nothing().await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = driver => {}
                () = letting_go.cancelled() => {}
                () = untold => {}
                () = heartbeat(asking.clone(), role, pulse.as_deref(), watched.as_deref(), news.as_deref()) => {}
                () = moved => {}
                () = memory => {}
            }
            if let Some(pulse) = pulse {
                pulse.stop();
            }
            drop(closing);
            if let Some(news) = news {
                news.changes.note_all();
            }
        });
        Ok(Self {
            connection,
            since: Instant::now(),
            closed,
            tracked,
            primary,
            _driven: unused.drop_guard(),
        })
    }

    pub(super) fn is_open(&self) -> bool {
        !self.closed.is_cancelled()
    }

    /// Ends it, for whoever uses it.
    pub(super) fn stop(&self) {
        if let Ok(pulse) = &self.tracked {
            pulse.stop();
        }
    }

    /// Where news of what is read over it comes from.
    pub(super) fn source(&self) -> Source {
        match &self.tracked {
            Ok(pulse) => Source::Server(Arc::clone(pulse)),
            Err(_) => Source::Nowhere,
        }
    }

    /// Why it brings no news of changes.
    pub(super) fn untracked(&self) -> Option<&str> {
        self.tracked.as_ref().err().map(String::as_str)
    }

    /// Sends one command and reads its answer. `asking`: it was another server of a cluster that sent us here, for this
    /// once.
    pub(super) async fn send<T: FromRedisValue>(
        &self,
        command: &Cmd,
        asking: bool,
        deadline: Instant,
    ) -> Result<T, Fault> {
        let mut connection = self.connection.clone();
        let asked = Instant::now();
        let answer = timeout_at(deadline, async {
            if asking {
                after_asking(command, &mut connection).await
            } else {
                command.query_async::<T>(&mut connection).await
            }
        });
        let answer = answer.await.map_err(|_| Fault::late())?;
        if answer.is_ok()
            && let Ok(pulse) = &self.tracked
        {
            proved(pulse, self.primary.as_deref(), asked);
        }
        answer.map_err(Fault::from)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A question of that moment was answered. Where sentinels say who the primary is, it counts from when they did.
fn proved(pulse: &Pulse, primary: Option<&Watched>, asked: Instant) {
    match primary.map(Watched::confirmed) {
        None => pulse.beat(asked),
        Some(Some(confirmed)) => pulse.beat(confirmed.min(asked)),
        Some(None) => {}
    }
}

/// Logs in, with RESP3 where the server has it: else it says why that is missing.
async fn handshake(
    info: &ConnectionInfo,
    tls: &Tls,
    news: Option<&Arc<News>>,
) -> Result<(MultiplexedConnection, Driver, Result<(), String>), Fault> {
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_connection_timeout(None)
        .set_pipeline_buffer_size(QUEUE);
    let mut tells = Err("it is a sentinel".to_owned());
    if let Some(news) = news {
        let news = Arc::clone(news);
        let hear = move |push: PushInfo| {
            news.hear(&push);
            Ok::<(), Infallible>(())
        };
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let stream = open(info.addr(), tls).await?;
        let config = config.clone().set_push_sender(hear);
        match MultiplexedConnection::new_with_config(&settings, stream, config).await {
            Ok((connection, driver)) => return Ok((connection, Box::pin(driver), Ok(()))),
            Err(error) if knows_no_resp3(&error) => {
                tells = Err("it speaks no RESP3 (Redis 6 or newer does)".to_owned());
            }
            Err(error) => return Err(error.into()),
        }
    }
    let stream = open(info.addr(), tls).await?;
    let (connection, driver) =
        MultiplexedConnection::new_with_config(info.redis_settings(), stream, config).await?;
    Ok((connection, Box::pin(driver), tells))
}

/// Whether a server, or a proxy before it, does not know what HELLO is.
fn knows_no_resp3(error: &RedisError) -> bool {
    error.kind() == ErrorKind::RESP3NotSupported || matches!(error.code(), Some("ERR" | "NOPROTO"))
}

async fn role(connection: &mut MultiplexedConnection) -> Result<Role, Fault> {
    match cmd("ROLE").query_async::<Vec<Value>>(connection).await {
        Ok(told) => Ok(match told.first() {
            Some(Value::BulkString(word)) if word == b"master" => Role::Primary,
            Some(Value::BulkString(word)) if word == b"slave" => Role::Replica,
            _ => Role::Untold,
        }),
        Err(error) if is_not_for_us(&error) => Ok(Role::Untold),
        Err(error) => Err(error.into()),
    }
}

/// Whether the server answers, and refuses the command: unknown, or not allowed.
fn is_not_for_us(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(ServerErrorKind::NoPerm | ServerErrorKind::ResponseError)
            | ErrorKind::UnexpectedReturnType
    )
}

/// From now on the server tells of each change of a key of ours. Or it is said why it does not.
async fn track(connection: &mut MultiplexedConnection, role: Role, news: &News) -> Result<(), String> {
    match role {
        Role::Primary => {}
        Role::Replica => return Err("it is a replica: what the primary has written may not have come".into()),
        Role::Untold => return Err("its ACL hides whether it is the primary: allow `+role`".into()),
    }
    let mut track = cmd("CLIENT");
    track.arg("TRACKING").arg("ON").arg("BCAST");
    if !news.key_prefix.is_empty() {
        track.arg("PREFIX").arg(&news.key_prefix);
    }
    match track.query_async::<Value>(connection).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => Err(
            "its ACL refuses `CLIENT TRACKING`: allow `+client|tracking` (before Redis 7: `+client`)".into(),
        ),
        Err(_) => Err("it knows no `CLIENT TRACKING`".into()),
    }
}

/// Ends when the connection has died, or the server has become another than it was.
async fn heartbeat(
    mut connection: MultiplexedConnection,
    was: Role,
    pulse: Option<&Pulse>,
    primary: Option<&Watched>,
    news: Option<&News>,
) {
    loop {
        tokio::time::sleep(BEAT).await;
        let asked = Instant::now();
        let answer = timeout(PATIENCE, async {
            match was {
                Role::Untold => {
                    let pong = cmd("PING").query_async::<Value>(&mut connection).await;
                    pong.map(|_| was).map_err(Fault::from)
                }
                Role::Primary | Role::Replica => role(&mut connection).await,
            }
        });
        match answer.await {
            // In a cluster a primary that is cut off from the others goes on calling itself one, and takes no writes.
            Ok(Ok(role)) if role == was && is_cut_off(&mut connection, news).await => {}
            Ok(Ok(role)) if role == was => {
                if let Some(pulse) = pulse {
                    proved(pulse, primary, asked);
                }
            }
            Ok(Ok(_)) => {
                tracing::info!("the session store's server is no longer what it was: connecting anew");
                return;
            }
            // Also a refusal shows that somebody is there.
            Ok(Err(fault)) if !fault.is_broken_connection() => {}
            _ => return,
        }
    }
}

/// Whether a node of a cluster says that this is down, as far as it can see. It says so to whoever names a key, its own or
/// another's.
async fn is_cut_off(connection: &mut MultiplexedConnection, news: Option<&News>) -> bool {
    let Some(news) = news.filter(|news| news.is_cluster) else {
        return false;
    };
    let mut get = cmd("GET");
    get.arg(format!("{}probe", news.key_prefix));
    match timeout(PATIENCE, get.query_async::<Value>(connection)).await {
        Ok(Err(error)) => error.code() == Some("CLUSTERDOWN"),
        Ok(Ok(_)) => false,
        Err(_) => true,
    }
}

/// A command that the server carries out although its keys are on their way to it (Redis Cluster: ASK).
async fn after_asking<T: FromRedisValue>(
    command: &Cmd,
    connection: &mut MultiplexedConnection,
) -> Result<T, RedisError> {
    let mut both = pipe();
    both.cmd("ASKING").add_command(command.clone());
    let answers = connection.req_packed_commands(&both, 0, 2).await?;
    for answer in &answers {
        if let Value::ServerError(error) = answer {
            return Err(error.clone().into());
        }
    }
    let answer = answers.into_iter().last().unwrap_or(Value::Nil);
    Ok(T::from_redis_value(answer)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::changes::Changes;
    use crate::store::testing::RedisServer;

    #[tokio::test]
    async fn a_node_that_is_cut_off_from_its_cluster_proves_nothing_although_it_answers() {
        let redis = RedisServer::start_with(&["--cluster-enabled", "yes"]);
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", redis.port)).unwrap();
        let connection = client.get_multiplexed_async_connection().await.unwrap();
        for (is_cluster, is_proof) in [(true, false), (false, true)] {
            let news = News::new(Changes::new(), "p:", None, is_cluster);
            let pulse = Pulse::new(Instant::now());
            // It calls itself a primary all the time, and longer than a proof counts.
            let beating = heartbeat(connection.clone(), Role::Primary, Some(&pulse), None, Some(&news));
            let beaten = timeout(Duration::from_millis(1500), beating).await;
            assert!(beaten.is_err(), "the connection is kept");
            assert_eq!(
                pulse.lives(Instant::now()),
                is_proof,
                "in a cluster: {is_cluster}"
            );
        }
    }
}
