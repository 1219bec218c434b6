//! A way to Redis that fails on demand: cut, silent, or executing commands whose answers never come.

use crate::dice::Dice;
use crate::support::runtime;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the way is like.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    /// Connections begun before this many cuts are gone.
    cuts: u64,
    /// Nothing goes to the server.
    deaf: bool,
    /// Nothing comes back.
    dumb: bool,
}

/// The way of one replica.
pub struct Proxy {
    pub port: u16,
    way: watch::Sender<Way>,
    served: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.served.abort();
    }
}

impl Proxy {
    pub async fn start(to: u16) -> Self {
        let bound = runtime().spawn(TcpListener::bind("127.0.0.1:0"));
        let listener = bound.await.unwrap().unwrap();
        let port = listener.local_addr().unwrap().port();
        let (way, watching) = watch::channel(Way::default());
        let served = runtime().spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let watching = watching.clone();
                runtime().spawn(async move {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await {
                        carry(client, server, watching).await;
                    }
                });
            }
        });
        Self { port, way, served }
    }

    /// Ends every connection.
    fn cut(&self) {
        self.way.send_modify(|way| {
            *way = Way {
                cuts: way.cuts + 1,
                ..Way::default()
            }
        });
    }

    /// One piece of bad luck, from beginning to end.
    pub async fn fail(&self, dice: &mut Dice) {
        match dice.below(10) {
            0..5 => self.cut(),
            5..8 => {
                // What is asked in this time is done, and nobody learns of it.
                self.way.send_modify(|way| way.dumb = true);
                tokio::time::sleep(dice.millis(5, 100)).await;
                self.cut();
            }
            _ => {
                self.way.send_modify(|way| {
                    (way.deaf, way.dumb) = (true, true);
                });
                tokio::time::sleep(dice.millis(200, 1_200)).await;
                self.way.send_modify(|way| {
                    (way.deaf, way.dumb) = (false, false);
                });
            }
        }
    }
}

async fn carry(client: TcpStream, server: TcpStream, mut way: watch::Receiver<Way>) {
    let _nagle = (client.set_nodelay(true), server.set_nodelay(true));
    let begun = way.borrow().cuts;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = copy(from_client, to_server, way.clone(), |way| way.deaf) => {}
        () = copy(from_server, to_client, way.clone(), |way| way.dumb) => {}
        _cut = way.wait_for(|way| way.cuts != begun) => {}
    }
}

/// Copies until either side ends; what was read while the way was blocked goes on when it is free again.
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
    blocked: fn(&Way) -> bool,
) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        if way.wait_for(|way| !blocked(way)).await.is_err() || to.write_all(&piece[..count]).await.is_err() {
            return;
        }
    }
}

/// The longest that one piece of bad luck lasts.
pub const LONGEST: Duration = Duration::from_millis(1_200);
