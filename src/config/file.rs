//! Finds the config's file and reads it as text.
//!
//! The very first step of a start. Whatever stands at the path, the answer is the text or one sentence.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The largest config, in bytes; a long one has some ten thousand.
const LARGEST: u64 = 1 << 20;

/// The file to read: the one that was named, `$CLOAKROOM_CONFIG`, or the first of the usual places that exists.
///
/// # Errors
/// Where it was looked for, if it is nowhere.
pub(super) fn find(named: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    if let Some(path) = std::env::var_os("CLOAKROOM_CONFIG").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    ["cloakroom.yaml", "/etc/cloakroom/cloakroom.yaml"]
        .into_iter()
        .map(PathBuf::from)
        // A file that is there and cannot be read is an error of its own, not a reason to look elsewhere.
        .find(|path| path.symlink_metadata().is_ok())
        .ok_or_else(|| {
            "there is no config: looked for ./cloakroom.yaml and /etc/cloakroom/cloakroom.yaml; \
             name one with --config FILE or $CLOAKROOM_CONFIG"
                .into()
        })
}

/// Reads a config's text.
///
/// # Errors
/// Why there is none, in a sentence that follows "FILE: ".
pub(super) fn read(path: &Path) -> Result<String, String> {
    let cannot = |error: io::Error| format!("cannot be read: {}", reason(&error));
    let file = std::fs::File::open(path).map_err(cannot)?;
    if file.metadata().map_err(cannot)?.is_dir() {
        return Err("is a folder; wanted: a YAML file".into());
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > LARGEST {
        return Err("is larger than 1 MiB, which no config is".into());
    }
    text(bytes)
}

/// The text in the bytes of a config: UTF-8, with or without a byte order mark.
fn text(bytes: Vec<u8>) -> Result<String, String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("is UTF-16; save it as UTF-8".into());
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.split(|byte| *byte == b'\n').count();
        format!("is no UTF-8 text: line {line} holds other bytes; save it as UTF-8")
    })?;
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    // YAML 1.2.2 §5.1: C0 controls other than tab and line breaks are no YAML characters.
    match text
        .chars()
        .position(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}'))
    {
        None => Ok(text),
        Some(at) => {
            let line = 1 + text.chars().take(at).filter(|c| *c == '\n').count();
            Err(format!("is no text: line {line} holds a control character"))
        }
    }
}

/// Why a file cannot be read, without the operating system's number.
pub(super) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::NotADirectory => "a part of the path is no folder".into(),
        kind => kind.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_utf_8_text_is_a_config() {
        assert_eq!(text(b"\xef\xbb\xbfa: 1".to_vec()), Ok("a: 1".into()));
        assert_eq!(text("a: ü\r\n\tb".into()), Ok("a: ü\r\n\tb".into()));
        for (bytes, wanted) in [
            (&b"\xff\xfea\0"[..], "UTF-16"),
            (b"a: 1\nb: \xff", "line 2 holds other bytes"),
            (b"a: 1\n\nb: \0", "line 3 holds a control character"),
            (b"\x7fELF\x02\x01", "line 1 holds a control character"),
        ] {
            let refusal = text(bytes.to_vec()).unwrap_err();
            assert!(refusal.contains(wanted), "{refusal}");
        }
    }

    #[test]
    fn what_is_no_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap_err().contains("folder"));
        assert!(
            read(&folder.path().join("none"))
                .unwrap_err()
                .contains("no such file")
        );
        let large = folder.path().join("large");
        std::fs::write(&large, vec![b'#'; (1 << 20) + 1]).unwrap();
        assert!(read(&large).unwrap_err().contains("1 MiB"));
    }
}
