//! Bytes that leave nothing behind.

use std::fmt;
use zeroize::optimization_barrier;

/// Bytes that are wiped when they are dropped, with all the room that they had.
///
/// `Zeroizing` would do, and write one byte after the other: for the tokens of a session, read anew with each request,
/// that takes longer than to decrypt them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Wiped(Vec<u8>);

impl Wiped {
    /// Takes them in. What they were copied from is not its to wipe.
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl std::ops::Deref for Wiped {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl std::ops::DerefMut for Wiped {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl fmt::Debug for Wiped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Overwrites all the room that there is, what lies behind the length included.
pub(super) fn wipe(bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.resize(bytes.capacity(), 0);
    // What nobody reads any more the compiler would not write.
    optimization_barrier(bytes.as_slice());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_behind_the_length_is_wiped_too() {
        let mut bytes = b"a secret, and its end".to_vec();
        bytes.truncate(8);
        let (room, place) = (bytes.capacity(), bytes.as_ptr());
        wipe(&mut bytes);
        // That it is also done where nobody reads it afterwards is the barrier's matter, and nothing safe can see it.
        assert_eq!((bytes.len(), bytes.as_ptr()), (room, place), "in place");
        assert!(bytes.iter().all(|byte| *byte == 0));
    }
}
