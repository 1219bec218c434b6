//! The body of a file that is too large to be read at once: piece by piece, as the browser takes them.
//!
//! INVARIANT: one file's bytes only. Where the file is written to meanwhile, or ends too early, the body breaks off, and
//! with it what the browser has got: half of one build and half of the next, under the `ETag` of the first, is worse.

use super::folder;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::fs::{File, Metadata};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;

/// How much is read at once, bytes: enough to make little of the way to the thread that reads, and little enough that a
/// thousand browsers which read slowly can have theirs.
pub const PIECE: u64 = 128 * 1024;

/// What is left to send of a file.
#[derive(Debug)]
pub struct Pieces {
    file: Arc<File>,
    about: Metadata,
    at: u64,
    left: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Pieces {
    /// So many bytes from there on; `about` is what was said of the file.
    pub fn new(file: Arc<File>, about: Metadata, at: u64, left: u64) -> Self {
        Self {
            file,
            about,
            at,
            left,
            reading: None,
        }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let reading = this.reading.get_or_insert_with(|| {
            let (file, about, at) = (this.file.clone(), this.about.clone(), this.at);
            let length = this.left.min(PIECE);
            tokio::task::spawn_blocking(move || piece(&file, &about, at, length))
        });
        let read = ready!(Pin::new(reading).poll(cx));
        this.reading = None;
        let piece = read??;
        this.at += piece.len() as u64;
        this.left -= piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

fn piece(file: &File, about: &Metadata, at: u64, length: u64) -> io::Result<Bytes> {
    let piece = folder::read(file, at, length)?;
    if piece.len() as u64 != length || !folder::is_unchanged(file, about)? {
        return Err(io::Error::other("the file has changed while it was sent"));
    }
    Ok(piece)
}
