//! HTTP/1.1 by hand, for both sides: what a library would repair or hide is exactly what the suite looks at.

use std::io::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Header fields in order, names as sent.
pub type Fields = Vec<(String, String)>;

/// A start line and its fields.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// Request line or status line.
    pub start: String,
    /// The fields in order.
    pub fields: Fields,
}

/// The values of all fields of that name, in any case.
pub fn values<'a>(fields: &'a Fields, name: &str) -> Vec<&'a str> {
    let of_name = fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
    of_name.map(|(_, value)| value.as_str()).collect()
}

impl Head {
    /// The first value of that name.
    pub fn value(&self, name: &str) -> Option<&str> {
        values(&self.fields, name).first().copied()
    }

    /// The status of a response.
    pub fn status(&self) -> u16 {
        self.start
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0)
    }

    fn chunked(&self) -> bool {
        self.value("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }

    fn length(&self) -> Option<u64> {
        self.value("content-length").and_then(|value| value.parse().ok())
    }

    /// How a request's body is framed.
    pub fn request_framing(&self) -> Framing {
        match self.length() {
            _ if self.chunked() => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::Length(0),
        }
    }

    /// How a response's body is framed.
    pub fn response_framing(&self, method: &str) -> Framing {
        let status = self.status();
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Framing::Length(0);
        }
        match self.length() {
            _ if self.chunked() => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::Close,
        }
    }
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many more bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// Where the connection ends.
    Close,
}

/// A connection and what was read of it too early.
#[derive(Debug)]
pub struct Wire<S> {
    /// The connection.
    pub stream: S,
    ahead: Vec<u8>,
    /// The trailers of the last chunked body.
    pub trailers: Fields,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Over a fresh connection.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            ahead: Vec::new(),
            trailers: Vec::new(),
        }
    }

    /// Writes bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    async fn fill(&mut self) -> Result<usize> {
        self.ahead.reserve(16 * 1024);
        self.stream.read_buf(&mut self.ahead).await
    }

    /// One line without its end, as Latin-1; `None` at the end of the connection.
    pub async fn line(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(at) = self.ahead.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.ahead.drain(..=at).collect();
                let line = line.strip_suffix(b"\r\n").unwrap_or(&line[..at]);
                return Ok(Some(line.iter().map(|byte| char::from(*byte)).collect()));
            }
            if self.fill().await? == 0 {
                return if self.ahead.is_empty() {
                    Ok(None)
                } else {
                    Err(ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    async fn fields(&mut self) -> Result<Fields> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?.ok_or(ErrorKind::UnexpectedEof)?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or(ErrorKind::InvalidData)?;
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// The next head; `None` at the end of the connection.
    pub async fn head(&mut self) -> Result<Option<Head>> {
        let Some(start) = self.line().await? else {
            return Ok(None);
        };
        Ok(Some(Head {
            start,
            fields: self.fields().await?,
        }))
    }

    /// So many bytes.
    pub async fn exactly(&mut self, count: usize) -> Result<Vec<u8>> {
        while self.ahead.len() < count {
            if self.fill().await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.ahead.drain(..count).collect())
    }

    /// The next piece of a body; `None` at its clean end.
    pub async fn piece(&mut self, framing: &mut Framing) -> Result<Option<Vec<u8>>> {
        match framing {
            Framing::Length(0) => Ok(None),
            Framing::Length(left) => {
                if self.ahead.is_empty() && self.fill().await? == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                let count = self.ahead.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= count as u64;
                Ok(Some(self.ahead.drain(..count).collect()))
            }
            Framing::Chunked => {
                let line = self.line().await?.ok_or(ErrorKind::UnexpectedEof)?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = usize::from_str_radix(size, 16).map_err(Error::other)?;
                if size == 0 {
                    self.trailers = self.fields().await?;
                    *framing = Framing::Length(0);
                    return Ok(None);
                }
                let mut chunk = self.exactly(size + 2).await?;
                chunk.truncate(size);
                Ok(Some(chunk))
            }
            Framing::Close => {
                if self.ahead.is_empty() && self.fill().await? == 0 {
                    return Ok(None);
                }
                Ok(Some(std::mem::take(&mut self.ahead)))
            }
        }
    }

    /// The rest of a body.
    pub async fn body(&mut self, mut framing: Framing) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece(&mut framing).await? {
            body.extend(piece);
        }
        Ok(body)
    }
}
