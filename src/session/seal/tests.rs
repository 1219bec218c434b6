//! What sealing promises.

use super::*;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

const URL: &str = "https://app.example.com";
const COOKIE: &[u8] = &[7; 32];

fn secret(n: u8) -> Secret {
    Secret::new(BASE64_URL_SAFE_NO_PAD.encode([n; 32]))
}

fn ring(keys: &[u8]) -> KeyRing {
    KeyRing::new(URL, &keys.iter().map(|n| secret(*n)).collect::<Vec<_>>()).unwrap()
}

fn sealed(ring: &KeyRing) -> Vec<u8> {
    ring.seal(Purpose::Session, COOKIE, &["issuer", "app"], b"canary")
}

#[test]
fn what_is_sealed_opens_again() {
    let ring = ring(&[1]);
    let opened = ring.open(Purpose::Session, COOKIE, &["issuer", "app"], &sealed(&ring));
    assert_eq!(**opened.as_ref().unwrap(), b"canary");
    assert!(!format!("{opened:?}").contains("canary"));
    let empty = ring.seal(Purpose::LoginAttempt, &[], &[], b"");
    assert!(
        ring.open(Purpose::LoginAttempt, &[], &[], &empty)
            .unwrap()
            .is_empty()
    );
    assert!(!format!("{ring:?}").contains("AQEB"));
}

#[test]
fn it_opens_only_for_its_purpose_deployment_context_and_cookie() {
    let ring = ring(&[1]);
    let sealed = sealed(&ring);
    let elsewhere = KeyRing::new("https://other.example.com", &[secret(1)]).unwrap();
    for outcome in [
        ring.open(Purpose::LoginAttempt, COOKIE, &["issuer", "app"], &sealed),
        ring.open(Purpose::Session, &[8; 32], &["issuer", "app"], &sealed),
        ring.open(Purpose::Session, &[], &["issuer", "app"], &sealed),
        ring.open(Purpose::Session, COOKIE, &["issuer", "other"], &sealed),
        ring.open(Purpose::Session, COOKIE, &["issuera", "pp"], &sealed),
        ring.open(Purpose::Session, COOKIE, &["issuer"], &sealed),
        ring.open(Purpose::Session, COOKIE, &["issuer", "app", ""], &sealed),
        elsewhere.open(Purpose::Session, COOKIE, &["issuer", "app"], &sealed),
    ] {
        assert_eq!(outcome, Err(OpenError::Broken));
    }
}

#[test]
fn se_03_any_flipped_bit_and_any_cut_is_refused() {
    let ring = ring(&[1]);
    let sealed = sealed(&ring);
    for bit in 0..sealed.len() * 8 {
        let mut flipped = sealed.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = ring
            .open(Purpose::Session, COOKIE, &["issuer", "app"], &flipped)
            .unwrap_err();
        let wanted = match bit / 8 {
            0 => OpenError::UnknownFormat,
            1..=8 => OpenError::UnknownKey,
            _ => OpenError::Broken,
        };
        assert_eq!(error, wanted, "bit {bit}");
    }
    for length in 0..sealed.len() {
        assert!(
            ring.open(Purpose::Session, COOKIE, &["issuer", "app"], &sealed[..length])
                .is_err()
        );
    }
}

#[test]
fn se_03_equal_things_are_sealed_unlike() {
    let ring = ring(&[1]);
    let (a, b) = (sealed(&ring), sealed(&ring));
    assert_eq!(a[..=KEY_ID], b[..=KEY_ID]);
    // Not even the provider's tag repeats.
    assert_ne!(a[HEADER - TAG..HEADER], b[HEADER - TAG..HEADER]);
    assert!(!a.windows(6).any(|window| window == b"canary"));
}

#[test]
fn se_05_all_keys_open_the_first_seals_and_an_unknown_one_is_told_apart() {
    let (old, both, new) = (ring(&[1]), ring(&[2, 1]), ring(&[2]));
    let opened =
        |ring: &KeyRing, sealed: &[u8]| ring.open(Purpose::Session, COOKIE, &["issuer", "app"], sealed);
    assert!(opened(&both, &sealed(&old)).is_ok());
    assert!(opened(&new, &sealed(&both)).is_ok());
    assert_eq!(opened(&new, &sealed(&old)), Err(OpenError::UnknownKey));
    assert_eq!(opened(&old, &sealed(&both)), Err(OpenError::UnknownKey));
}

#[test]
fn the_right_one_of_several_contexts_is_found() {
    let ring = ring(&[1]);
    let contexts: [&[&str]; 3] = [&["a", "app"], &["issuer", "app"], &["b", "app"]];
    let (n, plain) = ring
        .open_any(Purpose::Session, COOKIE, contexts, &sealed(&ring))
        .unwrap()
        .unwrap();
    assert_eq!((n, &plain[..]), (1, &b"canary"[..]));
    let others: [&[&str]; 2] = [contexts[0], contexts[2]];
    assert_eq!(
        ring.open_any(Purpose::Session, COOKIE, others, &sealed(&ring)),
        Ok(None)
    );
}

#[test]
fn missing_short_and_doubled_keys_are_refused_and_never_shown() {
    let short = Secret::new(BASE64_URL_SAFE_NO_PAD.encode([5; 31]));
    let long = Secret::new(BASE64_URL_SAFE_NO_PAD.encode([5; 33]));
    for keys in [
        &[][..],
        &[short],
        &[long],
        &[Secret::new("canary!")],
        &[Secret::new("")],
        &[secret(1), secret(2), secret(1)],
    ] {
        let why = KeyRing::new(URL, keys).unwrap_err();
        assert!(
            why.contains("session.keys") && !why.contains("BQUF") && !why.contains("canary"),
            "{why}"
        );
    }
    assert!(KeyRing::new(URL, &[Secret::new(secret(1).expose().to_owned() + "=\n")]).is_ok());
}

#[test]
fn a_signature_holds_for_its_message_purpose_and_deployment() {
    let (old, both, new) = (ring(&[1]), ring(&[2, 1]), ring(&[2]));
    let signature = old.sign("logout", b"message");
    assert!(old.verify("logout", b"message", &signature) && both.verify("logout", b"message", &signature));
    assert!(!new.verify("logout", b"message", &signature));
    assert!(!old.verify("logout", b"massage", &signature));
    assert!(!old.verify("login", b"message", &signature));
    assert!(!old.verify("logout", b"message", &signature[..31]));
    let elsewhere = KeyRing::new("https://other.example.com", &[secret(1)]).unwrap();
    assert!(!elsewhere.verify("logout", b"message", &signature));
    assert_ne!(elsewhere.scoped([1; 32]), old.scoped([1; 32]));
}

#[tokio::test(start_paused = true)]
async fn ca_06_a_replaced_key_file_seals_anew_and_locks_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    let passes = || tokio::time::advance(LOOK_AGAIN);
    let sources = [SecretSource::file(&path), SecretSource::plain(secret(9).expose())];
    assert!(KeyRing::watching(URL, &sources).is_err());
    write(secret(1).expose());
    let watching = KeyRing::watching(URL, &sources).unwrap();
    let opens = |ring: &KeyRing, sealed: &[u8]| {
        ring.open(Purpose::Session, COOKIE, &["issuer", "app"], sealed)
            .is_ok()
    };
    let old = sealed(&watching);
    assert!(opens(&ring(&[1]), &old));

    write(secret(2).expose());
    assert!(opens(&ring(&[1]), &sealed(&watching)));
    passes().await;
    let new = sealed(&watching);
    assert!(opens(&ring(&[2]), &new) && !opens(&ring(&[1]), &new));
    assert!(opens(&watching, &old) && opens(&watching, &new));
    assert!(opens(&watching, &sealed(&ring(&[9]))));

    // None of these is a key, or one besides the other.
    for bad in ["", "too short", secret(9).expose()] {
        write(bad);
        passes().await;
        assert!(opens(&ring(&[2]), &sealed(&watching)), "{bad}");
    }
    std::fs::remove_file(&path).unwrap();
    passes().await;
    assert!(opens(&ring(&[2]), &sealed(&watching)));

    // What was signed and sealed before still holds when the first key comes back.
    let signature = watching.sign("logout", b"message");
    write(secret(1).expose());
    passes().await;
    assert!(opens(&ring(&[1]), &sealed(&watching)));
    assert!(opens(&watching, &old) && opens(&watching, &new));
    assert!(watching.verify("logout", b"message", &signature));
}
