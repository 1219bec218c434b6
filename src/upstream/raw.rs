//! For tests: HTTP spelled out on bare sockets, to see and to say what no library would.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

/// Longer than anything here takes; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Answers connections with `script`, which is told how many came before.
pub async fn serve<F>(script: impl Fn(TcpStream, usize) -> F + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = TaskTracker::new();
    let connections = tasks.clone();
    tasks.spawn(async move {
        for n in 0.. {
            let Ok((stream, _)) = listener.accept().await else {
                break;
            };
            connections.spawn(script(stream, n));
        }
    });
    address
}

/// Reads up to and including the empty line; empty at the stream's end.
pub async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match tokio::time::timeout(PATIENCE, stream.read_u8())
            .await
            .expect("no head")
        {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Reads exactly so many bytes.
pub async fn read_exactly(stream: &mut (impl AsyncRead + Unpin), count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut bytes))
        .await
        .expect("no body")
        .unwrap();
    bytes
}

/// Reads to the stream's end, or to its reset.
pub async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = tokio::time::timeout(PATIENCE, stream.read(&mut chunk))
        .await
        .expect("no end")
    {
        bytes.extend_from_slice(&chunk[..read]);
    }
    bytes
}

/// Writes and flushes.
pub async fn say(stream: &mut (impl AsyncWrite + Unpin), bytes: impl AsRef<[u8]>) {
    // The other side may be gone: what it does not read is what the test looks at.
    let _ = stream.write_all(bytes.as_ref()).await;
    let _ = stream.flush().await;
}

/// Connects, says `request` and reads everything that comes back.
pub async fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    say(&mut stream, request).await;
    String::from_utf8_lossy(&read_all(&mut stream).await).into_owned()
}
