//! Bytes in several pieces, written as one.
//!
//! Stands on the ground floor. hyper hands over a message's head and the begin of its body as two pieces. For the kernel to
//! gather them (`writev(2)`) takes longer than to copy a kilobyte and to send that (`send(2)`), and one piece alone it need not
//! gather at all.
//!
//! What is copied lies on the stack until it is written over, as it lies in hyper's own buffers.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

/// So many bytes are copied rather than gathered.
const SHORT: usize = 2 * 1024;

/// Writes pieces in their order, as [`AsyncWrite::poll_write_vectored`] does.
///
/// # Errors
/// The writer's.
pub fn poll_write(
    writer: Pin<&mut (impl AsyncWrite + ?Sized)>,
    cx: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let length = pieces.iter().map(|piece| piece.len()).sum();
    let first = pieces
        .iter()
        .find(|piece| !piece.is_empty())
        .map_or(&[][..], |piece| piece);
    if first.len() == length {
        return writer.poll_write(cx, first);
    }
    if length > SHORT {
        return writer.poll_write_vectored(cx, pieces);
    }
    let (mut whole, mut end) = ([0; SHORT], 0);
    for piece in pieces {
        whole[end..end + piece.len()].copy_from_slice(piece);
        end += piece.len();
    }
    writer.poll_write(cx, &whole[..length])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;

    /// Notes how it is asked.
    #[derive(Default)]
    struct Writer {
        written: Vec<u8>,
        gathered: bool,
    }

    impl AsyncWrite for Writer {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.written.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.gathered = true;
            self.written.extend(pieces.iter().flat_map(|piece| piece.iter()));
            Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn no_byte_is_lost_or_moved_whatever_the_pieces_are() {
        for (lengths, gathered) in [
            (&[][..], false),
            (&[0], false),
            (&[7], false),
            (&[2 * SHORT], false),
            (&[0, 2 * SHORT, 0], false),
            (&[1, 2, 3], false),
            (&[0, 5, 0, 6], false),
            (&[1, SHORT - 1], false),
            (&[1, SHORT], true),
            (&[SHORT, SHORT, 1], true),
        ] {
            let mut bytes = (0..=250_u8).cycle();
            let pieces: Vec<Vec<u8>> = lengths
                .iter()
                .map(|length| bytes.by_ref().take(*length).collect())
                .collect();
            let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            let mut writer = pin!(Writer::default());
            let count = poll_fn(|cx| poll_write(writer.as_mut(), cx, &slices))
                .await
                .unwrap();
            assert_eq!(writer.written, pieces.concat(), "{lengths:?}");
            assert_eq!(
                (count, writer.gathered),
                (pieces.concat().len(), gathered),
                "{lengths:?}"
            );
        }
    }
}
