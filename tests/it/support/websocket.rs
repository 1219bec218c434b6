//! WebSocket frames by hand (RFC 6455 §5), for the suite's browser and upstream.

use super::wire::Wire;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::io::Result;
use tokio::io::{AsyncRead, AsyncWrite};

/// A text message.
pub const TEXT: u8 = 1;
/// The end of the connection.
pub const CLOSE: u8 = 8;

/// The answer to a handshake's key (RFC 6455 §4.2.2).
pub fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// Writes one whole, short frame; `masked` as browsers do.
pub async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    kind: u8,
    payload: &[u8],
    masked: bool,
) -> Result<()> {
    wire.send(&frame(kind, payload, masked)).await
}

/// One whole, short frame; `masked` as browsers do.
pub fn frame(kind: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("short frames only");
    assert!(length < 126, "short frames only");
    let mut frame = vec![0x80 | kind, length | if masked { 0x80 } else { 0 }];
    let mask = if masked { [7, 21, 63, 111] } else { [0; 4] };
    if masked {
        frame.extend(mask);
    }
    frame.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// Reads one whole, short frame: its kind and payload.
pub async fn read<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) -> Result<(u8, Vec<u8>)> {
    let head = wire.exactly(2).await?;
    let mask = if head[1] & 0x80 == 0 {
        vec![0; 4]
    } else {
        wire.exactly(4).await?
    };
    let payload = wire.exactly(usize::from(head[1] & 0x7f)).await?;
    let plain = payload
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
        .collect();
    Ok((head[0] & 0x0f, plain))
}
