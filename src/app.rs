//! From settings to a running cloakroom, and to a graceful stop.
//!
//! Stopping has two stages: readiness is false for `drain_delay` while requests are still accepted, so that whoever
//! balances the load looks elsewhere; then the listeners close, and requests, tunnels and refreshes under way finish
//! within `drain_timeout`. What is left then is cut.

mod timekeeping;

use crate::admin::Admin;
use crate::bff::forward_auth::ForwardAuth;
use crate::bff::{self, Bff};
use crate::clock::Clock;
use crate::config::{ProxyEnvironment, RouteSettings, RouteTable, Server, Settings, StoreSettings};
use crate::guard::{Gate, SessionCookie};
use crate::listener::{self, Bounds, Socket, Tls};
use crate::metrics::Metrics;
use crate::provider::Provider;
use crate::proxy::Streams;
use crate::router::{Inner, Notices, Router, Target};
use crate::session::Sessions;
use crate::session::seal::KeyRing;
use crate::static_files::StaticFiles;
use crate::store::Store;
use crate::to_https::ToHttps;
use crate::upstream::Upstream;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The parts that settings make, without anything listening yet: what `run` serves and `check --online` asks.
#[derive(Debug)]
pub struct Parts {
    /// In the config's order.
    pub providers: Vec<Arc<Provider>>,
    /// The session store.
    pub store: Arc<Store>,
    /// The server keys.
    pub keys: Arc<KeyRing>,
    /// The routes, longest first.
    pub routes: Arc<RouteTable>,
    /// What stands behind each route.
    pub targets: Vec<Target>,
    /// The public listener's certificates.
    pub tls: Option<Tls>,
    /// The admin listener's.
    pub admin_tls: Option<Tls>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The time of day.
    pub clock: Clock,
}

impl Parts {
    /// Makes the parts. Nothing is asked of the network: providers, store and upstreams may be away.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn make(settings: &Settings) -> Result<Self, String> {
        let (clock, metrics) = (Clock::System, Arc::new(Metrics::default()));
        let store = match &settings.session.store {
            StoreSettings::Memory(limits) => Store::memory(limits.max_sessions, clock.clone()),
            StoreSettings::Redis(redis) => Store::redis(redis)?,
        };
        let store = store.counted_by(metrics.clone());
        let keys = if settings.session.keys.is_empty() {
            KeyRing::random(settings.public_url.origin())
        } else {
            KeyRing::watching(settings.public_url.origin(), &settings.session.keys)?
        };
        let proxies = ProxyEnvironment::read();
        let providers = settings
            .providers
            .iter()
            .map(|provider| Provider::new(provider.clone(), &proxies, clock.clone()).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let routes = RouteTable::new(&settings.prefix, &settings.routes);
        let targets = routes.routes().iter().map(target).collect::<Result<_, _>>()?;
        let tls = (!settings.server.tls.is_empty())
            .then(|| Tls::watching(&settings.server.tls))
            .transpose()?;
        let admin_tls = settings
            .server
            .admin_tls
            .as_ref()
            .map(Tls::of_admin)
            .transpose()?;
        Ok(Self {
            providers,
            store: Arc::new(store),
            keys: Arc::new(keys),
            routes: Arc::new(routes),
            targets,
            tls,
            admin_tls,
            metrics,
            clock,
        })
    }

    fn sessions(&self, settings: &Settings, tasks: &TaskTracker) -> Arc<Sessions> {
        Arc::new(Sessions::new(
            self.store.clone(),
            self.keys.clone(),
            &settings.session,
            &self.providers,
            self.clock.clone(),
            tasks.clone(),
            self.metrics.clone(),
        ))
    }
}

fn target(route: &RouteSettings) -> Result<Target, String> {
    if let Some(files) = &route.files {
        return Ok(Target::Files(StaticFiles::new(files, route.auth())));
    }
    if route.upstream.is_empty() {
        return Ok(Target::Nothing);
    }
    Upstream::new(&route.upstream, route.protocol, route.ca.as_deref()).map(Target::Upstream)
}

/// Serves until `stop` is ready, then drains.
///
/// # Errors
/// A sentence for the operator: a listener that cannot be bound.
///
/// # Cancel safety
/// Not: dropping it cuts everything that is under way.
pub async fn run(settings: Settings, parts: Parts, stop: impl Future<Output = ()>) -> Result<(), String> {
    let settings = Arc::new(settings);
    let sockets = Sockets::bind(&settings.server, &parts).await?;
    let (tasks, tunnels, stopping, cut) = (
        TaskTracker::new(),
        TaskTracker::new(),
        CancellationToken::new(),
        CancellationToken::new(),
    );
    let sessions = parts.sessions(&settings, &tasks);
    let admin = Admin::new(
        settings.clone(),
        parts.store.clone(),
        sessions.clone(),
        parts.providers.clone(),
        parts.metrics.clone(),
        tasks.clone(),
    );
    let admin_stop = CancellationToken::new();
    tasks.spawn(timekeeping::keep(parts.metrics.clone(), admin_stop.clone()));
    let to_https = ToHttps::new(settings.clone(), parts.routes.clone(), parts.metrics.clone());
    let (router, forward_auth) = services(&settings, parts, sessions.clone(), &tasks, &tunnels, &cut);
    let bounds = public_bounds(&settings.server);
    tell_registrations(&settings);
    let listeners = TaskTracker::new();
    let admin_task = tasks.spawn(listener::serve(
        sockets.admin,
        Bounds {
            places: listener::places(256),
            streams: listener::places(256),
            ..bounds.clone()
        },
        admin.clone(),
        // Whoever asks for health or metrics is not waited for.
        CancellationToken::new(),
        admin_stop.clone(),
    ));
    for socket in sockets.public {
        if let Ok(address) = socket.tcp.local_addr() {
            let tls = socket.tls.is_some();
            tracing::info!(%address, tls, public_url = settings.public_url.origin(), "listening");
        }
        listeners.spawn(listener::serve(
            socket,
            bounds.clone(),
            router.clone(),
            stopping.clone(),
            cut.clone(),
        ));
    }
    for socket in sockets.redirect {
        if let Ok(address) = socket.tcp.local_addr() {
            tracing::info!(%address, to = settings.public_url.origin(), "listening for http, to lead pages to https");
        }
        listeners.spawn(listener::serve(
            socket,
            bounds.clone(),
            to_https.clone(),
            stopping.clone(),
            cut.clone(),
        ));
    }
    if let Some(socket) = sockets.forward_auth {
        if let Ok(address) = socket.tcp.local_addr() {
            let dialect = settings.server.forward_auth_dialect;
            tracing::info!(%address, ?dialect, "listening for forward-auth");
        }
        listeners.spawn(listener::serve(
            socket,
            asked_by_ingress(&bounds, settings.server.max_connections),
            forward_auth,
            stopping.clone(),
            cut.clone(),
        ));
    }
    listeners.close();

    let under_way = UnderWay {
        listeners,
        tunnels,
        stopping,
        cut,
        tasks,
        admin_task,
        admin_stop,
        sessions,
    };
    stop.await;
    tracing::info!(delay = ?settings.server.drain_delay, "stopping: not ready any more, still accepting");
    admin.drain();
    tokio::time::sleep(settings.server.drain_delay).await;
    tracing::info!(timeout = ?settings.server.drain_timeout, "stopping: listeners closed, finishing what is under way");
    under_way.finish(settings.server.drain_timeout).await;
    tracing::info!("stopped");
    Ok(())
}

/// What the operator has to register at each provider.
fn tell_registrations(settings: &Settings) {
    for registered in settings.registrations() {
        tracing::info!(
            provider = registered.provider,
            redirect_uri = registered.redirect_uri,
            post_logout_redirect_uri = registered.post_logout_redirect_uri,
            backchannel_logout_uri = registered.backchannel_logout_uri,
            frontchannel_logout_uri = registered.frontchannel_logout_uri,
            "the provider has to know these addresses, to the letter"
        );
    }
}

/// All that is listened on.
struct Sockets {
    admin: Socket,
    public: Vec<Socket>,
    redirect: Vec<Socket>,
    forward_auth: Option<Socket>,
}

impl Sockets {
    async fn bind(server: &Server, parts: &Parts) -> Result<Self, String> {
        let admin = bind(server.admin, "server.admin", parts.admin_tls.clone()).await?;
        let (mut public, mut redirect) = (Vec::new(), Vec::new());
        for address in &server.listen {
            public.push(bind(*address, "server.listen", parts.tls.clone()).await?);
        }
        for address in &server.redirect {
            redirect.push(bind(*address, "server.redirect", None).await?);
        }
        let forward_auth = match server.forward_auth {
            Some(address) => Some(bind(address, "server.forward_auth", None).await?),
            None => None,
        };
        Ok(Self {
            admin,
            public,
            redirect,
            forward_auth,
        })
    }
}

/// What runs while cloakroom serves.
struct UnderWay {
    listeners: TaskTracker,
    /// Only the listeners' requests open tunnels, and a tunnel is no longer its listener's.
    tunnels: TaskTracker,
    /// Closes the listeners.
    stopping: CancellationToken,
    /// Cuts requests and tunnels.
    cut: CancellationToken,
    /// Everything else: refreshes, deletes, the admin listener, keeping the time.
    tasks: TaskTracker,
    admin_task: JoinHandle<()>,
    /// Stops the last two.
    admin_stop: CancellationToken,
    /// Asked at the end for what is not confirmed.
    sessions: Arc<Sessions>,
}

impl UnderWay {
    /// The second stage of stopping: what is under way finishes within `timeout`, or is cut.
    async fn finish(self, timeout: Duration) {
        self.stopping.cancel();
        let deadline = tokio::time::Instant::now() + timeout;
        let finished = async {
            self.listeners.wait().await;
            self.tunnels.close();
            self.tunnels.wait().await;
        };
        if tokio::time::timeout_at(deadline, finished).await.is_err() {
            tracing::warn!("stopping: cutting what is still under way");
        }
        self.cut.cancel();
        self.admin_stop.cancel();
        // The sockets are closed now; what is left are refreshes and deletes, which must not be lost.
        let _ = self.admin_task.await;
        self.tasks.close();
        let grace = deadline.max(tokio::time::Instant::now() + Duration::from_secs(1));
        if tokio::time::timeout_at(grace, self.tasks.wait()).await.is_err() {
            tracing::warn!("stopping: some background work did not finish in time");
            let unconfirmed = self.sessions.unconfirmed();
            if unconfirmed > 0 {
                tracing::error!(
                    unconfirmed,
                    "stopping: the session store has not confirmed the end of all sessions that were logged out here: other \
                     replicas take them for living ones; when it is back, end those of the `logout` events with an `error` with \
                     `cloakroom sessions revoke`"
                );
            }
        }
    }
}

/// The bounds of what browsers reach.
fn public_bounds(server: &Server) -> Bounds {
    Bounds {
        header_timeout: server.header_timeout,
        idle_timeout: listener::IDLE_TIMEOUT,
        max_header_size: usize::try_from(server.max_header_size).unwrap_or(usize::MAX),
        max_headers: server.max_headers,
        places: listener::places(server.max_connections),
        streams: listener::places(server.max_connections),
        speaking: Arc::default(),
    }
}

/// The bounds of the forward-auth listener: room for the few lines that an ingress adds to a head that the public listener
/// would take, one of which repeats the target; and places of its own, so that browsers cannot take the ingress's.
fn asked_by_ingress(public: &Bounds, max_connections: usize) -> Bounds {
    Bounds {
        max_header_size: public.max_header_size.saturating_add(16 * 1024),
        max_headers: public.max_headers.saturating_add(16),
        places: listener::places(max_connections),
        streams: listener::places(max_connections),
        ..public.clone()
    }
}

/// What answers on the public listeners, and what answers an ingress: both through one gate.
fn services(
    settings: &Arc<Settings>,
    parts: Parts,
    sessions: Arc<Sessions>,
    tasks: &TaskTracker,
    tunnels: &TaskTracker,
    cut: &CancellationToken,
) -> (Router, ForwardAuth) {
    let Parts {
        providers,
        store,
        keys,
        routes,
        targets,
        metrics,
        clock,
        ..
    } = parts;
    let bff = Arc::new(Bff::new(bff::Parts {
        settings: settings.clone(),
        routes: routes.clone(),
        providers,
        sessions: sessions.clone(),
        store,
        keys,
        clock: clock.clone(),
        metrics: metrics.clone(),
        tasks: tasks.clone(),
    }));
    let gate = Arc::new(Gate {
        routes,
        sessions: sessions.clone(),
        cookie: SessionCookie::new(&settings.session),
    });
    let forward_auth = ForwardAuth::new(settings.clone(), gate.clone(), bff.clone(), metrics.clone());
    let router = Router::new(Inner {
        settings: settings.clone(),
        gate,
        targets,
        streams: Streams::new(sessions, clock.clone()),
        bff,
        metrics,
        clock,
        tunnels: tunnels.clone(),
        cut: cut.clone(),
        notices: Notices::default(),
    });
    (router, forward_auth)
}

async fn bind(address: SocketAddr, key: &str, tls: Option<Tls>) -> Result<Socket, String> {
    let tcp = TcpListener::bind(address).await.map_err(|error| {
        format!("cannot listen on {address} ({key}): {error}. Is another process using the port? Choose another, or stop it.")
    })?;
    Ok(Socket { tcp, tls })
}
