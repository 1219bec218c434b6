//! Many connections at once, from this one process.

use crate::siege::Siege;
use crate::support::h2::{self, H2};
use crate::support::rig::Rig;
use crate::support::until;
use crate::support::wire::Wire;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::sync::Once;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The most connections that are open at one time, with what else each of the processes has open.
const FILES: u64 = 12_000;

/// Lets this process, and those that it starts, have so many descriptors.
///
/// # Panics
/// Where the system does not let it.
pub fn make_room() {
    static ROOM: Once = Once::new();
    ROOM.call_once(|| {
        let now = getrlimit(Resource::Nofile);
        if now.current.is_some_and(|current| current < FILES) {
            let wanted = Rlimit {
                current: Some(FILES),
                maximum: now.maximum.map(|maximum| maximum.max(FILES)),
            };
            setrlimit(Resource::Nofile, wanted)
                .unwrap_or_else(|error| panic!("{FILES} file descriptors are needed (ulimit -n): {error}"));
        }
    });
}

/// So many connections, each of them taken: a few at a time, so that the kernel's queue has room for all.
pub async fn connect(siege: &Siege, count: usize) -> Vec<TcpStream> {
    let (mut all, before) = (Vec::with_capacity(count), siege.held().files);
    while all.len() < count {
        for _ in 0..100.min(count - all.len()) {
            all.push(TcpStream::connect(siege.rig.cloakroom.address()).await.unwrap());
        }
        // The bystander comes and goes, and idle connections to upstreams do.
        until(10, "the connections to be taken", || {
            siege.held().files + 32 >= before + all.len()
        })
        .await;
    }
    all
}

/// Does the same so many times, as many at one time as `wide` says.
pub async fn many<F: Future<Output = ()> + 'static>(count: usize, wide: usize, each: impl Fn(usize) -> F) {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let mut working = JoinSet::new();
            for n in 0..count {
                if working.len() >= wide {
                    working.join_next().await.unwrap().unwrap();
                }
                working.spawn_local(each(n));
            }
            while let Some(done) = working.join_next().await {
                done.unwrap();
            }
        })
        .await;
}

/// One request by hand over a fresh connection: its status, or 0 where none came.
pub async fn ask(address: SocketAddr, request: &[u8]) -> u16 {
    let mut wire = Wire::new(TcpStream::connect(address).await.unwrap());
    let _cut = wire.send(request).await;
    match wire.head().await {
        Ok(Some(head)) => {
            let _cut = wire.body(head.response_framing("GET")).await;
            head.status()
        }
        _ => 0,
    }
}

/// What everybody asks for, over both versions, so many times at once: so that all is there that this takes.
pub async fn ask_once_each(rig: &Rig, wide: usize) {
    let address = rig.cloakroom.address();
    many(wide, wide, |n| async move {
        let path = ["/api/public/x", "/app.js", "/bff/user"][n % 3];
        let request = format!("GET {path} HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n\r\n");
        ask(address, request.as_bytes()).await;
        let mut connection = H2::connect(address).await;
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "app.example"),
            (":path", path),
        ];
        let stream = connection.fresh();
        connection
            .send(&h2::headers(stream, &h2::block(&fields), true))
            .await;
        connection.answer(stream).await;
    })
    .await;
}
