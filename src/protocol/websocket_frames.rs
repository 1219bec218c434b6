//! Where a WebSocket's frames begin and end, and what they are for: followed byte by byte, whatever pieces they come in.
//!
//! The proxy's tunnel asks this where it may put a frame of its own between two of others', and whether the browser has
//! said anything. Payloads are neither kept, copied nor unmasked, and a follower is a few bytes whatever passes.
//!
//! INVARIANT: however the bytes are cut into pieces, the same is found in them.
//!
//! Only what makes frames unreadable, or what no endpoint may send, counts as malformed: extensions may use reserved bits
//! and opcodes, and what messages are made of is for the endpoints to judge.
//!
//! Sources: RFC 6455 §5.2, §5.4, §5.5, §7.4.1.

/// The most that a control frame may carry, bytes (RFC 6455 §5.5).
const MAX_CONTROL: u8 = 125;
/// Set in the first byte of a message's last frame.
const FIN: u8 = 0x80;
/// Set in a frame's second byte where its payload is masked.
const MASKED: u8 = 0x80;
const CLOSE: u8 = 0x8;

/// Who sends the frames of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The WebSocket's client: its frames are masked.
    Browser,
    /// The WebSocket's server: its frames are not.
    Upstream,
}

/// These are no frames that this side may send: where the next one begins cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no WebSocket frame: {0}")]
pub struct Malformed(&'static str);

/// Where one direction of a WebSocket has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follower {
    sender: Sender,
    at: At,
    is_closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Between two frames.
    Boundary,
    /// After a frame's first byte.
    Opened { first: u8 },
    /// So many bytes of the length are still to come.
    Length { opcode: u8, missing: u8, length: u64 },
    /// So many bytes of mask and payload are still to come.
    Payload { opcode: u8, left: u64 },
}

impl Follower {
    /// Before the first frame.
    #[must_use]
    pub fn new(sender: Sender) -> Self {
        Self {
            sender,
            at: At::Boundary,
            is_closed: false,
        }
    }

    /// Whether what was followed ends between two frames.
    #[must_use]
    pub fn is_at_boundary(&self) -> bool {
        self.at == At::Boundary
    }

    /// Whether a whole close frame has passed: "The application MUST NOT send any more data frames after sending a Close
    /// frame" (RFC 6455 §5.5.1).
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Follows these bytes. True if any of them belong to a message, from the first frame of it to the last: control
    /// frames do not.
    ///
    /// # Errors
    /// [`Malformed`]: nothing that comes after can be made sense of.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<bool, Malformed> {
        let (mut from, mut is_message) = (0, false);
        while from < bytes.len() {
            from += self.step(&bytes[from..], &mut is_message)?;
        }
        Ok(is_message)
    }

    /// How many of these bytes belong to the frame under way; all of them where it does not end here.
    ///
    /// # Errors
    /// [`Malformed`], as if they were followed.
    pub fn rest_of_frame(mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut from = 0;
        while from < bytes.len() && !self.is_at_boundary() {
            from += self.step(&bytes[from..], &mut false)?;
        }
        Ok(from)
    }

    /// Takes one step into `bytes`, of which there is at least one: how many it took.
    fn step(&mut self, bytes: &[u8], is_message: &mut bool) -> Result<usize, Malformed> {
        let byte = bytes[0];
        match self.at {
            At::Boundary => self.at = At::Opened { first: byte },
            At::Opened { first } => {
                self.check(first, byte)?;
                let opcode = first & 0xf;
                *is_message |= !is_control(opcode);
                match byte & !MASKED {
                    126 => self.expect_length(opcode, 2),
                    127 => self.expect_length(opcode, 8),
                    length => self.expect_payload(opcode, length.into()),
                }
            }
            At::Length {
                opcode,
                missing,
                length,
            } => {
                *is_message |= !is_control(opcode);
                let (missing, length) = (missing - 1, length << 8 | u64::from(byte));
                if missing > 0 {
                    self.at = At::Length {
                        opcode,
                        missing,
                        length,
                    };
                } else {
                    // "the most significant bit MUST be 0" (RFC 6455 §5.2).
                    if length >> 63 != 0 {
                        return Err(Malformed("it is longer than any can be"));
                    }
                    self.expect_payload(opcode, length);
                }
            }
            At::Payload { opcode, left } => {
                *is_message |= !is_control(opcode);
                let here = u64::try_from(bytes.len()).unwrap_or(u64::MAX).min(left);
                self.pass(opcode, left - here);
                return Ok(usize::try_from(here).unwrap_or(bytes.len()));
            }
        }
        Ok(1)
    }

    /// Whether a frame may begin with these two bytes.
    fn check(&self, first: u8, second: u8) -> Result<(), Malformed> {
        // "a client MUST mask all frames that it sends to the server […] The server MUST close the connection upon
        // receiving a frame that is not masked. […] A server MUST NOT mask any frames that it sends to the client. A client
        // MUST close a connection if it detects a masked frame" (RFC 6455 §5.1).
        match (self.sender, second & MASKED != 0) {
            (Sender::Browser, false) => return Err(Malformed("a client's is masked")),
            (Sender::Upstream, true) => return Err(Malformed("a server's is not masked")),
            _ => {}
        }
        // "All control frames MUST have a payload length of 125 bytes or less and MUST NOT be fragmented" (RFC 6455 §5.5).
        if is_control(first & 0xf) && (first & FIN == 0 || second & !MASKED > MAX_CONTROL) {
            return Err(Malformed("a control frame is short and whole"));
        }
        Ok(())
    }

    fn expect_length(&mut self, opcode: u8, missing: u8) {
        self.at = At::Length {
            opcode,
            missing,
            length: 0,
        };
    }

    fn expect_payload(&mut self, opcode: u8, length: u64) {
        let mask = match self.sender {
            Sender::Browser => 4,
            Sender::Upstream => 0,
        };
        self.pass(opcode, length + mask);
    }

    /// So much of the frame is left.
    fn pass(&mut self, opcode: u8, left: u64) {
        if left > 0 {
            self.at = At::Payload { opcode, left };
        } else {
            self.at = At::Boundary;
            self.is_closed |= opcode == CLOSE;
        }
    }
}

/// "Control frames are identified by opcodes where the most significant bit of the opcode is 1" (RFC 6455 §5.5).
fn is_control(opcode: u8) -> bool {
    opcode & 0x8 != 0
}

/// Why a WebSocket is closed (RFC 6455 §7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// 1001: "an endpoint is 'going away', such as a server going down or a browser having navigated away from a page".
    GoingAway = 1001,
    /// 1008: what a connection is closed with that a policy forbids.
    PolicyViolation = 1008,
}

/// A close frame (RFC 6455 §5.5.1), masked with `mask` where a client sends it. Of a `reason` longer than a control frame
/// may be, only the beginning is said.
#[must_use]
pub fn close_frame(code: CloseCode, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let reason = &reason.as_bytes()[..reason.floor_char_boundary(usize::from(MAX_CONTROL) - 2)];
    let payload = [&(code as u16).to_be_bytes()[..], reason].concat();
    let length = u8::try_from(payload.len()).unwrap_or(MAX_CONTROL);
    let mut frame = vec![FIN | CLOSE, length];
    match mask {
        None => frame.extend(payload),
        Some(mask) => {
            frame[1] |= MASKED;
            frame.extend(mask);
            frame.extend(
                payload
                    .iter()
                    .zip(mask.iter().cycle())
                    .map(|(byte, mask)| byte ^ mask),
            );
        }
    }
    frame
}

#[cfg(test)]
#[path = "websocket_frames_tests.rs"]
mod tests;
