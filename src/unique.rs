//! Names that nothing else has: of requests, of traces.
//!
//! Stands on the ground floor. Each request needs some of them, so random bytes are drawn for many at once. INVARIANT:
//! nothing secret is made here; what must not be guessed or must be wiped takes its bytes from the library itself.

use std::cell::RefCell;

/// How many bytes are drawn at once: names for some fifty requests.
const DRAWN: usize = 2048;

struct Pool {
    bytes: [u8; DRAWN],
    used: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; DRAWN], used: DRAWN }) };
}

/// Random bytes for a name; `None` where the system has none.
#[must_use]
pub fn bytes<const N: usize>() -> Option<[u8; N]> {
    const { assert!(N <= DRAWN) };
    POOL.with_borrow_mut(|pool| {
        if pool.used + N > DRAWN {
            aws_lc_rs::rand::fill(&mut pool.bytes).ok()?;
            pool.used = 0;
        }
        let drawn = pool.bytes[pool.used..].first_chunk::<N>().copied();
        pool.used += N;
        drawn
    })
}

/// Appends bytes in lower-case hexadecimal.
pub fn push_hex(text: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.extend_from_slice(&[byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_name_comes_twice_on_any_thread() {
        let draw = || (0..1000).map(|_| bytes::<16>().unwrap()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(draw)).collect();
        let all: Vec<_> = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 4000);
        let ones: u32 = all.iter().flatten().map(|byte| byte.count_ones()).sum();
        // Of 512,000 bits; sixteen standard deviations.
        assert!((250_000..262_000).contains(&ones), "{ones}");
    }

    #[test]
    fn hexadecimal_is_two_digits_a_byte() {
        let mut text = b"0x".to_vec();
        push_hex(&mut text, &[0, 0x0f, 0xa9, 0xff]);
        assert_eq!(text, b"0x000fa9ff");
    }
}
