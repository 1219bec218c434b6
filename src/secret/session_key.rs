//! The text of a session encryption key, read the same way wherever it is read: by the check of the config, and by what
//! seals with it.

use super::Secret;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

/// The length of a session encryption key, in bytes.
pub const SESSION_KEY_BYTES: usize = 32;

/// Why a text is no session encryption key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSessionKey {
    /// It is no base64url.
    #[error("cannot be decoded")]
    Undecodable,
    /// It has fewer bits.
    #[error("is too short")]
    Short,
    /// It has more.
    #[error("is too long")]
    Long,
}

/// Reads a session encryption key: 256 bits in base64url, with or without the one padding character that they come with.
///
/// # Errors
/// [`NoSessionKey`]
pub fn session_key(text: &Secret) -> Result<Zeroizing<[u8; SESSION_KEY_BYTES]>, NoSessionKey> {
    let text = text.expose().trim();
    let text = text.strip_suffix('=').unwrap_or(text);
    let decoded = URL_SAFE_NO_PAD.decode(text).map(Zeroizing::new);
    let decoded = decoded.map_err(|_| NoSessionKey::Undecodable)?;
    let mut key = Zeroizing::new([0; SESSION_KEY_BYTES]);
    if decoded.len() < key.len() {
        return Err(NoSessionKey::Short);
    }
    if decoded.len() > key.len() {
        return Err(NoSessionKey::Long);
    }
    key.copy_from_slice(&decoded);
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn se_03_a_key_is_256_bits_padded_or_not() {
        let read = |text: &str| session_key(&Secret::new(text)).map(|key| *key);
        let key = URL_SAFE_NO_PAD.encode([7; 32]);
        for text in [key.clone(), format!("{key}="), format!("{key}=\n")] {
            assert_eq!(read(&text), Ok([7; 32]), "{text}");
        }
        for (text, fault) in [
            (URL_SAFE_NO_PAD.encode([7; 31]), NoSessionKey::Short),
            (String::new(), NoSessionKey::Short),
            (URL_SAFE_NO_PAD.encode([7; 33]), NoSessionKey::Long),
            (format!("{key}=="), NoSessionKey::Undecodable),
            (format!("={key}"), NoSessionKey::Undecodable),
            ("!".repeat(43), NoSessionKey::Undecodable),
            // Bits beyond the last byte.
            (format!("{}9", &key[..42]), NoSessionKey::Undecodable),
        ] {
            assert_eq!(read(&text), Err(fault), "{text}");
        }
    }
}
