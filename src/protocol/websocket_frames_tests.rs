//! Tests of [`super`]: conversations whose boundaries are known, cut into every kind of pieces.

use super::*;

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CONTINUATION: u8 = 0x0;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// Bytes of frames, and what is known of each byte.
#[derive(Default)]
struct Script {
    bytes: Vec<u8>,
    /// Whether a frame ends with the byte.
    ends: Vec<bool>,
    /// Whether the byte shows that there is a message.
    is_message: Vec<bool>,
}

impl Script {
    /// One more frame; `form`: how many bytes its length takes beyond the second byte.
    fn frame(&mut self, sender: Sender, first: u8, payload: &[u8], form: usize) {
        let length = payload.len() as u64;
        let masked = if sender == Sender::Browser { MASKED } else { 0 };
        let from = self.bytes.len();
        self.bytes.push(first);
        self.bytes.push(
            masked
                | match form {
                    0 => u8::try_from(length).unwrap(),
                    2 => 126,
                    _ => 127,
                },
        );
        self.bytes.extend(&length.to_be_bytes()[8 - form..]);
        if masked != 0 {
            // Bytes that would be a close frame, were they taken for a frame's beginning.
            self.bytes.extend([0x88, 0x02, 0x88, 0x00]);
        }
        self.bytes.extend(payload);
        let message = first & 0x8 == 0;
        self.is_message.push(false);
        self.is_message.resize(self.bytes.len(), message);
        self.ends.resize(self.bytes.len(), false);
        *self.ends.last_mut().unwrap() = true;
        assert!(self.bytes.len() >= from + 2);
    }

    /// A conversation's one direction with everything that frames can be.
    fn of(sender: Sender) -> Self {
        let mut script = Self::default();
        let payload: Vec<u8> = (0u8..=255).cycle().take(66_000).collect();
        script.frame(sender, FIN | TEXT, b"", 0);
        script.frame(sender, FIN | TEXT, b"hello", 0);
        script.frame(sender, FIN | PING, b"", 0);
        script.frame(sender, FIN | BINARY, &payload[..125], 0);
        script.frame(sender, FIN | BINARY, &payload[..126], 2);
        script.frame(sender, FIN | PONG, &payload[..125], 0);
        // A message in pieces, with control frames between them; the last piece is empty.
        script.frame(sender, TEXT, &payload[..300], 2);
        script.frame(sender, FIN | PING, b"still there?", 0);
        script.frame(sender, CONTINUATION, b"", 0);
        script.frame(sender, FIN | PONG, b"", 0);
        script.frame(sender, FIN, b"", 0);
        // Reserved bits and opcodes are an extension's (RFC 6455 §5.2), and so is a length in more bytes than it needs.
        script.frame(sender, FIN | 0x40 | TEXT, b"compressed", 0);
        script.frame(sender, FIN | 0x70 | 0x3, b"reserved", 2);
        script.frame(sender, FIN | 0xb, b"reserved control", 0);
        script.frame(sender, FIN | BINARY, b"long form", 8);
        script.frame(sender, FIN | BINARY, &payload, 8);
        script.frame(sender, FIN | TEXT, b"last", 0);
        script
    }

    /// Follows the script in pieces that end at `cuts`, and compares each with what is known.
    fn check(&self, sender: Sender, cuts: impl IntoIterator<Item = usize>) {
        let mut follower = Follower::new(sender);
        let mut from = 0;
        for to in cuts.into_iter().chain([self.bytes.len()]) {
            let to = to.min(self.bytes.len());
            let piece = &self.bytes[from..to];
            let between = from == 0 || self.ends[from - 1];
            let ends = &self.ends[from..to];
            let rest = match ends.iter().position(|end| *end) {
                _ if between => 0,
                Some(at) => at + 1,
                None => piece.len(),
            };
            assert_eq!(follower.is_at_boundary(), between, "before {from}");
            assert_eq!(follower.rest_of_frame(piece), Ok(rest), "{from}..{to}");
            let is_message = self.is_message[from..to].contains(&true);
            assert_eq!(follower.follow(piece), Ok(is_message), "{from}..{to}");
            from = to;
        }
        assert!(follower.is_at_boundary() && !follower.is_closed());
    }
}

#[test]
fn a_conversation_is_followed_however_it_is_cut() {
    for sender in [Sender::Browser, Sender::Upstream] {
        let script = Script::of(sender);
        let length = script.bytes.len();
        script.check(sender, []);
        for size in (1..=160).chain([1024, 8192, 65_535, 65_536]) {
            script.check(sender, (size..length).step_by(size));
        }
        // Every cut in two, but within the large payload, where one byte is like the next.
        let small = length - 66_000;
        for at in (0..small).chain(length - 40..length) {
            script.check(sender, [at]);
        }
        // Pieces of any sizes, empty ones too; the seed is the test's, so that a failure can be had again.
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..500 {
            let mut cuts = vec![0];
            while *cuts.last().unwrap() < length {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let most = [2, 8, 200, 20_000][usize::try_from(random >> 62).unwrap()];
                cuts.push(cuts.last().unwrap() + usize::try_from(random % most).unwrap());
            }
            script.check(sender, cuts);
        }
    }
}

#[test]
fn control_frames_are_no_messages() {
    for first in [FIN | PING, FIN | PONG, FIN | CLOSE, FIN | 0xb] {
        let mut script = Script::default();
        script.frame(Sender::Browser, first, b"xy", 0);
        let mut follower = Follower::new(Sender::Browser);
        assert_eq!(follower.follow(&script.bytes), Ok(false), "{first:#x}");
    }
}

#[test]
fn a_close_frame_counts_once_it_is_whole() {
    let mut follower = Follower::new(Sender::Upstream);
    let frame = close_frame(CloseCode::PolicyViolation, "session ended", None);
    for byte in &frame {
        assert!(!follower.is_closed());
        follower.follow(&[*byte]).unwrap();
    }
    assert!(follower.is_closed() && follower.is_at_boundary());
}

#[test]
fn what_is_no_frame_is_found_at_once() {
    let long = [&[0x82, 0xff][..], &[0x80, 0, 0, 0, 0, 0, 0, 0]].concat();
    let wrong: &[(Sender, &[u8], usize)] = &[
        // Not masked, though a client sends it; and the other way round.
        (Sender::Browser, &[0x81, 0x05], 2),
        (Sender::Upstream, &[0x81, 0x85], 2),
        (Sender::Browser, b"GET / HTTP/1.1\r\n", 2),
        (Sender::Upstream, b"HTTP/1.1 200 OK\r\n", 2),
        // Control frames that are long or in pieces.
        (Sender::Upstream, &[0x89, 126, 0, 126], 2),
        (Sender::Browser, &[0x88, 0x80 | 127], 2),
        (Sender::Upstream, &[0x08, 0], 2),
        (Sender::Browser, &[0x0a, 0x80], 2),
        // The highest bit of a length in eight bytes.
        (Sender::Browser, &long, 10),
        (
            Sender::Upstream,
            &[0x81, 1, b'x', 0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 0],
            13,
        ),
    ];
    for (sender, bytes, _) in wrong {
        assert!(Follower::new(*sender).follow(bytes).is_err(), "{bytes:x?}");
        for at in 0..bytes.len() {
            let mut follower = Follower::new(*sender);
            let outcome = follower
                .follow(&bytes[..at])
                .and_then(|_| follower.follow(&bytes[at..]));
            assert!(outcome.is_err(), "{bytes:x?} cut at {at}");
        }
    }
    for (sender, bytes, found) in wrong {
        let mut follower = Follower::new(*sender);
        let at = bytes.iter().position(|byte| follower.follow(&[*byte]).is_err());
        assert_eq!(at, Some(found - 1), "{bytes:x?}");
    }
}

#[test]
fn the_longest_frames_are_followed() {
    let mut follower = Follower::new(Sender::Browser);
    let head = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(follower.follow(&head), Ok(true));
    for _ in 0..1000 {
        assert_eq!(follower.follow(&[0x88; 8192]), Ok(true));
        assert!(!follower.is_at_boundary());
    }
    assert_eq!(follower.rest_of_frame(&[0; 100]), Ok(100));
}

#[test]
fn a_close_frame_is_spelt_as_its_sender_must() {
    let plain = close_frame(CloseCode::PolicyViolation, "bye", None);
    assert_eq!(plain, [0x88, 5, 0x03, 0xf0, b'b', b'y', b'e']);
    let masked = close_frame(CloseCode::GoingAway, "", Some([1, 2, 3, 4]));
    assert_eq!(masked, [0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xe9 ^ 2]);
    // A reason that is too long is cut, between two characters.
    let long = close_frame(CloseCode::GoingAway, &"ü".repeat(100), Some([0; 4]));
    assert_eq!(long.len(), 2 + 4 + 2 + 122);
    assert!(std::str::from_utf8(&long[8..]).is_ok());
    let mut follower = Follower::new(Sender::Browser);
    assert_eq!(follower.follow(&long), Ok(false));
    assert!(follower.is_closed());
}
