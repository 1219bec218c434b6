//! What a record says: to this release, to an older and to a newer one.

use super::*;
use crate::session::record::{FIELDS, RecordError};
use crate::session::testing::LIFETIME;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

/// A plain record's head, and what follows it.
fn parts(plain: &[u8]) -> (serde_json::Value, &[u8]) {
    let (length, rest) = plain.split_first_chunk().unwrap();
    let (head, texts) = rest.split_at(u32::from_be_bytes(*length).try_into().unwrap());
    (serde_json::from_slice(head).unwrap(), texts)
}

/// What [`parts`] took apart.
fn joined(head: &serde_json::Value, texts: &[u8]) -> Vec<u8> {
    let head = head.to_string();
    let length = u32::try_from(head.len()).unwrap();
    [&length.to_be_bytes(), head.as_bytes(), texts].concat()
}

/// Changes the head of a session's record, as another release would have written it.
async fn rewrite(world: &World, id: &SessionId, change: impl FnOnce(&mut serde_json::Value)) {
    let opened = world.sessions.read(id).await.unwrap().unwrap();
    let plain = opened.payload.encode().unwrap();
    let (mut head, texts) = parts(&plain);
    change(&mut head);
    let context = ["https://id.example.com", "app"];
    let plain = joined(&head, texts);
    let sealed = world
        .sessions
        .keys
        .seal(Purpose::Session, id.bits(), &context, &plain);
    world
        .store
        .create(key_of(world, id), sealed.into(), 30 * MINUTE)
        .await
        .unwrap();
}

#[tokio::test]
async fn se_11_a_newer_releases_record_is_read_safely_or_not_at_all() {
    let world = World::new();
    let (id, _) = world.begin().await;
    rewrite(&world, &id, |record| {
        record["from_the_future"] = json!({"a": [1]});
    })
    .await;
    assert!(world.look_up(&id).await.is_some());
    world.sessions.extend(&id).await.unwrap().unwrap();
    let opened = world.sessions.read(&id).await.unwrap().unwrap();
    let plain = opened.payload.encode().unwrap();
    assert_eq!(parts(&plain).0["from_the_future"], json!({"a": [1]}));

    for change in [json!({"v": 2}), json!({"v": 99, "lengths": 7})] {
        let (id, _) = world.begin().await;
        rewrite(&world, &id, |record| {
            record
                .as_object_mut()
                .unwrap()
                .extend(change.as_object().unwrap().clone());
        })
        .await;
        assert!(matches!(
            world.sessions.look_up(&id).await,
            Err(SessionError::Unreadable(_))
        ));
        assert!(world.store.read(key_of(&world, &id)).await.unwrap().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn se_11_what_a_newer_release_wrote_while_a_refresh_was_under_way_is_kept() {
    let world = World::new();
    let (id, session) = world.begin().await;
    rewrite(&world, &id, |record| record["from_the_future"] = json!("before")).await;
    world.clock.advance(LIFETIME);
    world.provider.with(|state| state.delays = (SECOND, SECOND));
    let renewed = world.sessions.fresh(&id, &session);
    let newer = async {
        sleep(SECOND).await;
        rewrite(&world, &id, |record| record["from_the_future"] = json!("after")).await;
    };
    let (renewed, ()) = tokio::join!(renewed, newer);
    assert_eq!(renewed.unwrap().unwrap().tokens.access_token.expose(), "access-1");
    let opened = world.sessions.read(&id).await.unwrap().unwrap();
    assert_eq!(opened.payload.tokens.access_token.expose(), "access-1");
    let plain = opened.payload.encode().unwrap();
    assert_eq!(parts(&plain).0["from_the_future"], "after");
}

#[test]
fn se_11_what_this_release_cannot_even_understand_is_kept() {
    let plain = Payload::new(new_session(&Clock::manual(BEGIN)), BEGIN)
        .encode()
        .unwrap();
    let (head, texts) = parts(&plain);
    let head = head.to_string();
    let deep = ["[".repeat(500), "]".repeat(500)].concat();
    for value in [
        "1e999",
        "123456789012345678901234567890.10",
        "{\"b\": 1, \"b\":\t2}",
        &deep,
    ] {
        let field = format!(r#""from\u002dthe future":{value}"#);
        let head = format!("{},{field}}}", head.strip_suffix('}').unwrap());
        let length = u32::try_from(head.len()).unwrap().to_be_bytes();
        let plain = [&length, head.as_bytes(), texts].concat();
        let plain = Payload::decode(&plain).unwrap().encode().unwrap();
        let kept = format!(r#","from-the future":{value}}}"#);
        assert!(
            plain.windows(kept.len()).any(|text| text == kept.as_bytes()),
            "{value}"
        );
    }
}

#[test]
fn se_11_a_record_that_makes_no_sense_is_none() {
    let plain = Payload::new(new_session(&Clock::manual(BEGIN)), BEGIN)
        .encode()
        .unwrap();
    assert!(Payload::decode(&plain).is_ok());
    let (head, texts) = parts(&plain);
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut head = head.clone();
        change(&mut head);
        joined(&head, texts)
    };
    let access = head["lengths"]["access"].as_u64().unwrap();
    for wrong in [
        Vec::new(),
        plain[..3].to_vec(),
        plain[..40].to_vec(),
        plain[..plain.len() - 1].to_vec(),
        [&plain[..], b"x"].concat(),
        [&[0xff; 4], &plain[4..]].concat(),
        plain[4..].to_vec(),
        with(&|head| head["lengths"]["access"] = json!(access + 1)),
        with(&|head| head["lengths"]["access"] = json!(access - 1)),
        with(&|head| head["lengths"]["access"] = json!(u64::MAX)),
        with(&|head| head["lengths"]["access"] = json!(-1)),
        with(&|head| drop(head["lengths"].as_object_mut().unwrap().remove("claims"))),
        with(&|head| drop(head.as_object_mut().unwrap().remove("begun"))),
        joined(&head, &[b"\xff", &texts[1..]].concat()),
    ] {
        assert_eq!(Payload::decode(&wrong).err(), Some(RecordError::Malformed));
    }
}

#[test]
fn se_11_only_what_this_release_does_not_know_is_kept_as_it_is() {
    let mut full = Payload::new(new_session(&Clock::manual(BEGIN)), BEGIN);
    full.sid = Some("s1".into());
    full.unconfirmed = true;
    full.show(BEGIN, 7);
    let plain = full.encode().unwrap();
    let (mut head, texts) = parts(&plain);
    let mut found: Vec<&str> = head.as_object().unwrap().keys().map(String::as_str).collect();
    let mut known = FIELDS.to_vec();
    found.sort_unstable();
    known.sort_unstable();
    assert_eq!(found, known);
    // What was there and is no more does not come back by way of what is kept.
    head["beside"] = json!([1]);
    let mut read = Payload::decode(&joined(&head, texts)).unwrap();
    read.sid = None;
    read.unconfirmed = false;
    read.forget_showings();
    let plain = read.encode().unwrap();
    let (head, _) = parts(&plain);
    assert_eq!(head["beside"], json!([1]));
    for gone in ["sid", "unconfirmed", "shown", "showing"] {
        assert_eq!(head.get(gone), None, "{gone}");
    }
}

async fn begin_with(world: &World, groups: usize, id_token: usize) -> Result<Arc<Session>, BeginError> {
    let mut new = new_session(&world.clock);
    new.claims.insert(
        "groups".into(),
        (0..groups).map(|n| format!("group-{n:034}")).collect(),
    );
    new.tokens.id_token = Some(IdToken::new("i".repeat(id_token)));
    let (id, _) = world.sessions.begin(new).await?;
    Ok(world.look_up(&id).await.unwrap())
}

#[tokio::test]
async fn se_11_a_record_is_at_most_64_kib_and_the_id_token_goes_first() {
    let world = World::new();
    let session = begin_with(&world, 300, 20_000).await.unwrap();
    assert_eq!(session.claims["groups"].as_array().unwrap().len(), 300);
    assert!(session.tokens.id_token.is_some());
    let session = begin_with(&world, 1000, 30_000).await.unwrap();
    assert_eq!(session.claims["groups"].as_array().unwrap().len(), 1000);
    assert!(session.tokens.id_token.is_none());
    assert!(begin_with(&world, 2000, 0).await.is_err());
}

#[test]
fn se_11_a_number_stays_what_it_is_however_often_its_record_is_written() {
    for number in [1_234.567_890_123_456_7, 4.467_450_737_095_516_3e24] {
        let mut new = new_session(&Clock::manual(BEGIN));
        new.claims.insert("number".into(), json!(number));
        let mut record = Payload::new(new, BEGIN);
        for _ in 0..3 {
            record = Payload::decode(&record.encode().unwrap()).unwrap();
            assert_eq!(record.claims["number"], json!(number));
        }
    }
}
