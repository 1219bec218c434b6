//! A connection's first moments: what is spoken on it.
//!
//! Under TLS the handshake says it (ALPN). In clear the first bytes do: HTTP/2 with prior knowledge begins with a preface
//! that is no HTTP/1.1 request. Nothing is built for a connection before it has spoken.
//!
//! Sources: RFC 9113 §3.3, §3.4.

use super::tls::{HTTP_2, Tls};
use bytes::BytesMut;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// "In HTTP/2, each endpoint is required to send a connection preface" (RFC 9113 §3.4): the client's.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much is read at once where little is expected, bytes: most heads.
const SOME: usize = 4 * 1024;

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// A connection that has spoken.
pub enum Opened {
    /// And the bytes that were read of it. Also where TLS was expected, so that it gets an answer that can be read.
    Clear(TcpStream, Protocol, BytesMut),
    Tls(Box<TlsStream<TcpStream>>, Protocol),
}

/// Waits until it is known what is spoken; the caller keeps the time.
pub async fn open(mut stream: TcpStream, tls: Option<&Tls>) -> io::Result<Opened> {
    let tls = match tls {
        Some(tls) if !speaks_http(&stream).await? => tls,
        _ => {
            let (protocol, begun) = first_bytes(&mut stream).await?;
            return Ok(Opened::Clear(stream, protocol, begun));
        }
    };
    // Boxed: in clear nobody needs the room, and under TLS it is given back.
    let stream = Box::pin(tls.accept(stream)).await?;
    // Who agrees on nothing speaks HTTP/1.1, which is older than ALPN.
    let protocol = match stream.get_ref().1.alpn_protocol() {
        Some(HTTP_2) => Protocol::Http2,
        _ => Protocol::Http1,
    };
    Ok(Opened::Tls(Box::new(stream), protocol))
}

/// Whether the first byte is a method's: TLS begins with the number of a record type, which is no letter.
async fn speaks_http(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    Ok(first[0].is_ascii_uppercase())
}

/// Reads until the bytes are HTTP/2's preface, or cannot become it.
async fn first_bytes(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Protocol, BytesMut)> {
    let mut begun = BytesMut::new();
    loop {
        let some = poll_fn(|cx| poll_some(stream, cx)).await?;
        if some.is_empty() {
            // The end, after nothing or after what hyper will call an incomplete message.
            return Ok((Protocol::Http1, begun));
        }
        begun.extend_from_slice(&some);
        if begun.starts_with(PREFACE) {
            return Ok((Protocol::Http2, begun));
        }
        if !PREFACE.starts_with(&begun) {
            return Ok((Protocol::Http1, begun));
        }
    }
}

/// Reads what there is; while there is nothing, no memory is held for it. Nothing: the end.
///
/// # Errors
/// Those of the stream.
pub fn poll_some(stream: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<io::Result<BytesMut>> {
    let mut some = [const { MaybeUninit::uninit() }; SOME];
    let mut some = ReadBuf::uninit(&mut some);
    ready!(Pin::new(stream).poll_read(cx, &mut some))?;
    Poll::Ready(Ok(BytesMut::from(some.filled())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn the_first_bytes_tell_what_is_spoken() {
        for (pieces, wanted) in [
            (&[PREFACE][..], Protocol::Http2),
            (&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04"], Protocol::Http2),
            (&[b"P", b"RI * HTTP/2.0\r\n", b"\r\nSM\r\n\r\n"], Protocol::Http2),
            (&[b"POST / HTTP/1.1\r\n"], Protocol::Http1),
            (&[b"P", b"UT / HTTP/1.1\r\n"], Protocol::Http1),
            (&[b"PRI * HTTP/2.0\r\n\r\nSX"], Protocol::Http1),
            (&[b"PRI * HT"], Protocol::Http1),
            (&[b"\r\n"], Protocol::Http1),
            (&[], Protocol::Http1),
        ] {
            let mut script = in_pieces(pieces);
            let (protocol, begun) = first_bytes(&mut script).await.unwrap();
            assert_eq!(protocol, wanted, "{pieces:?}");
            let mut all = begun.to_vec();
            script.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, pieces.concat(), "no byte is lost");
        }
    }

    /// A stream that brings each piece with a read of its own, and ends.
    fn in_pieces(pieces: &[&[u8]]) -> Box<dyn AsyncRead + Unpin> {
        let mut stream: Box<dyn AsyncRead + Unpin> = Box::new(tokio::io::empty());
        for piece in pieces.iter().rev() {
            stream = Box::new(io::Cursor::new(piece.to_vec()).chain(stream));
        }
        stream
    }
}
