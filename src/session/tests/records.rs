//! What a record says: to this release, to an older and to a newer one.

use super::*;

/// Changes the plain record of a session, as another release would have written it.
async fn rewrite(world: &World, id: &SessionId, change: impl FnOnce(&mut serde_json::Value)) {
    let opened = world.sessions.read(id).await.unwrap().unwrap();
    let mut record = serde_json::from_slice(&opened.payload.encode().unwrap()).unwrap();
    change(&mut record);
    let context = ["https://id.example.com", "app"];
    let sealed = world.sessions.keys.seal(
        Purpose::Session,
        id.bits(),
        &context,
        record.to_string().as_bytes(),
    );
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
    let kept = String::from_utf8(opened.payload.encode().unwrap().to_vec()).unwrap();
    assert!(kept.contains(r#""from_the_future":{"a":[1]}"#), "{kept}");

    for change in [json!({"v": 2}), json!({"v": 99, "tokens": 7})] {
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

#[tokio::test]
async fn se_11_claims_are_read_as_a_text_and_as_an_object() {
    let world = World::new();
    let (id, session) = world.begin().await;
    rewrite(&world, &id, |record| {
        let text = record["claims"].as_str().unwrap().to_owned();
        record["claims"] = serde_json::from_str(&text).unwrap();
    })
    .await;
    let read = world.look_up(&id).await.unwrap();
    assert!(!read.claims.is_empty());
    assert_eq!(*read.claims, *session.claims);
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
