//! Ten thousand connections that do nothing.

use crate::crowd::connect;
use crate::siege::{Siege, allowed};
use crate::support::h2::H2;
use crate::support::within;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How many.
const CROWD: usize = 10_000;

#[tokio::test]
async fn lm_01_ten_thousand_idle_connections_cost_memory_while_they_are_there_and_nobody_any_time() {
    let mut siege = Siege::start(|config| config.set("server.max_connections", CROWD + 500)).await;
    let mut rests = Vec::new();
    for round in ["10000 idle connections", "10000 more", "10000 once more"] {
        siege
            .under(round, allowed(192, 24), async |siege| {
                let before = siege.held();
                let mut crowd = connect(siege, CROWD).await;
                for (n, stream) in crowd.iter_mut().enumerate() {
                    let path = ["/app.js", "/api/public/x"][n % 2];
                    let request = format!("GET {path} HTTP/1.1\r\nHost: app.example\r\n\r\n");
                    stream.write_all(request.as_bytes()).await.unwrap();
                    if n % 50 == 49 {
                        // The answer to this one comes last; not to be too fast for the upstream.
                        let mut first = [0; 12];
                        within(10, "an answer", stream.read_exact(&mut first))
                            .await
                            .unwrap();
                        assert_eq!(&first, b"HTTP/1.1 200");
                    }
                }
                let held = siege.held();
                assert!(held.files >= before.files + CROWD, "{} descriptors", held.files);
                // Those that are not parked yet hold hyper's buffers.
                let each = (held.resident - before.resident) / 1024 / u64::try_from(CROWD).unwrap();
                assert!(each < 18, "{each} KiB each");
            })
            .await;
        rests.push(siege.held().resident);
    }
    // A thousand connections that were left behind would be more.
    let grown = rests[2].saturating_sub(rests[0]);
    assert!(
        grown < 10 * crate::MIB,
        "{grown} bytes more are kept than the first time"
    );
}

#[tokio::test]
async fn lm_01_idle_connections_over_http2_cost_no_more_than_they_must() {
    let mut siege = Siege::start(|config| config).await;
    for round in ["2000 idle connections over HTTP/2", "2000 more"] {
        siege
            .under(round, allowed(96, 16), async |siege| {
                let mut crowd = Vec::new();
                for stream in connect(siege, 2_000).await {
                    let mut connection = H2::over(stream, 65_535).await;
                    let fields = [
                        (":method", "GET"),
                        (":scheme", "http"),
                        (":authority", "app.example"),
                        (":path", "/app.js"),
                    ];
                    assert_eq!(connection.ask(&fields).await.status, 200);
                    crowd.push(connection);
                }
            })
            .await;
    }
}
