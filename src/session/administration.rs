//! What an administrator asks of sessions, and a user of their own: whose they are, and until when (contract §7).
//!
//! Not on a request's way. `admin` and `bff` ask here, and end what they found as a logout does. Records stay closed: all that can be
//! shown is what a login entered into the index, for opening a record takes the browser's cookie (contract 5.2).

use super::index::unseal;
use super::{Listed, Reference, Session, SessionError, Sessions, Wanted, Whose};
use crate::clock::UnixTime;
use crate::store::Kind;
use std::collections::BTreeSet;

impl Sessions {
    /// A user's sessions, the oldest first: at the provider of this name in the config, or at all.
    ///
    /// # Errors
    /// [`SessionError`]: it is not known which there are.
    pub async fn of_user(
        &self,
        sub: &str,
        provider: Option<&str>,
        wanted: Wanted,
    ) -> Result<Vec<Listed>, SessionError> {
        let named = self.providers.iter().filter(|one| wants(provider, one.name()));
        // Each issuer is asked once, whatever the config calls it.
        let issuers: BTreeSet<&str> = named.map(|one| one.issuer()).collect();
        let mut found = Vec::new();
        for issuer in issuers {
            let there = self.find(Whose::Sub { issuer, sub }, wanted).await?;
            found.extend(there.into_iter().map(|listed| self.named_as_now(issuer, listed)));
        }
        found.retain(|listed| wants(provider, &listed.provider));
        found.sort_by_key(|listed| (listed.begun, listed.reference()));
        Ok(found)
    }

    /// All sessions of the user whose this one is, at the issuer of its provider, the oldest first.
    ///
    /// # Errors
    /// [`SessionError`]: it is not known which there are.
    pub async fn of_same_user(&self, session: &Session, wanted: Wanted) -> Result<Vec<Listed>, SessionError> {
        let provider = self.provider(&session.provider).ok_or(SessionError::Elsewhere)?;
        let (issuer, sub) = (provider.issuer(), &session.sub);
        let found = self.find(Whose::Sub { issuer, sub }, wanted).await?;
        Ok(found
            .into_iter()
            .map(|listed| self.named_as_now(issuer, listed))
            .collect())
    }

    /// The session of this reference. `None`: it is not there, or was begun by a release that left no summary.
    ///
    /// # Errors
    /// [`SessionError`]: it is not known whether it is there.
    pub async fn by_reference(&self, reference: Reference) -> Result<Option<Listed>, SessionError> {
        let issuers: Vec<&str> = self.providers.iter().map(|one| one.issuer()).collect();
        let set = self.key(Kind::Summary, reference.hash());
        for (member, sealed) in self.store.listed(set).await? {
            let Some((issuer, listed)) = unseal(&self.keys, &issuers, member, &sealed)? else {
                tracing::error!(
                    ?set,
                    "a session's summary was tampered with, or its provider is not configured"
                );
                continue;
            };
            if self.is_there(member).await? {
                return Ok(Some(self.named_as_now(issuer, listed)));
            }
        }
        Ok(None)
    }

    /// When a session ends whatever happens. One without a refresh token ends earlier, with its access token.
    #[must_use]
    pub fn absolute_end(&self, listed: &Listed) -> UnixTime {
        listed.begun.plus(self.lifetime.absolute())
    }

    /// With its provider's name in the config as it is now: it may have been another when the session began.
    fn named_as_now(&self, issuer: &str, mut listed: Listed) -> Listed {
        let its = |one: &&std::sync::Arc<dyn super::RefreshAt>| {
            one.issuer() == issuer && one.client_id() == listed.client_id
        };
        let mut those = self.providers.iter().filter(its);
        let first = those.clone().next();
        if let Some(now) = those.find(|one| one.name() == listed.provider).or(first) {
            now.name().clone_into(&mut listed.provider);
        }
        listed
    }
}

fn wants(provider: Option<&str>, name: &str) -> bool {
    provider.is_none_or(|provider| provider == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::SessionId;
    use crate::session::testing::{Scripted, World, key_ring, new_session, replica};
    use crate::store::testing::Fails;
    use std::sync::Arc;
    use std::time::Duration;

    async fn begin_at(world: &World, provider: &str, sub: &str) -> SessionId {
        let mut new = new_session(&world.clock);
        provider.clone_into(&mut new.provider);
        sub.clone_into(&mut new.sub);
        let id = world.sessions.begin(new).await.unwrap().0;
        world.clock.advance(Duration::from_secs(1));
        id
    }

    /// Two clients of one issuer.
    fn with_two_providers() -> World {
        let mut world = World::new();
        let mut partner = Arc::into_inner(Scripted::new("partner")).unwrap();
        partner.client_id = "partner-app".into();
        let both = [world.provider.clone(), Arc::new(partner)];
        let keys = key_ring("https://app.example.com", 1);
        world.sessions = replica(&world.store, keys, &both, &world.clock, &world.tasks);
        world
    }

    #[tokio::test]
    async fn se_09_a_users_sessions_are_listed_at_one_provider_or_at_all() {
        let world = with_two_providers();
        let (one, two) = (
            begin_at(&world, "main", "alice").await,
            begin_at(&world, "partner", "alice").await,
        );
        begin_at(&world, "main", "bob").await;
        let listed = async |provider| -> Vec<(Reference, String)> {
            let found = world
                .sessions
                .of_user("alice", provider, Wanted::There)
                .await
                .unwrap();
            found
                .into_iter()
                .map(|listed| (listed.reference(), listed.provider))
                .collect()
        };
        let main = (world.sessions.reference(&one), "main".to_owned());
        let partner = (world.sessions.reference(&two), "partner".to_owned());
        assert_eq!(listed(None).await, [main.clone(), partner.clone()]);
        assert_eq!(listed(Some("main")).await, [main]);
        assert_eq!(listed(Some("partner")).await, [partner]);
        assert_eq!(listed(Some("nobody")).await, []);
    }

    #[tokio::test]
    async fn se_09_a_session_leads_to_all_of_its_users_and_to_nobody_elses() {
        let world = with_two_providers();
        let mut ids = Vec::new();
        for provider in ["main", "partner"] {
            ids.push(begin_at(&world, provider, "alice").await);
        }
        let bob = begin_at(&world, "main", "bob").await;
        let alices: Vec<_> = ids.iter().map(|id| world.sessions.reference(id)).collect();
        for (id, expected) in [
            (&ids[0], &alices[..]),
            (&ids[1], &alices),
            (&bob, &[world.sessions.reference(&bob)]),
        ] {
            let session = world.look_up(id).await.unwrap();
            let found = world
                .sessions
                .of_same_user(&session, Wanted::There)
                .await
                .unwrap();
            let found: Vec<_> = found.iter().map(Listed::reference).collect();
            assert_eq!(found, expected);
        }
    }

    #[tokio::test]
    async fn a_session_is_shown_by_its_reference_while_it_is_there() {
        let world = World::new();
        let id = begin_at(&world, "main", "alice").await;
        let reference = world.sessions.reference(&id);
        let shown = world.another().sessions.by_reference(reference).await.unwrap();
        let shown = shown.unwrap();
        assert_eq!((shown.reference(), &shown.sub[..]), (reference, "alice"));
        let latest = shown.begun.plus(Duration::from_hours(12));
        assert_eq!(world.sessions.absolute_end(&shown), latest);
        let unknown = Reference::of([7; 32]);
        assert!(world.sessions.by_reference(unknown).await.unwrap().is_none());
        world.store.outage.begin(&["read"], Fails::Before);
        assert!(world.sessions.by_reference(reference).await.is_err());
        world.store.outage.end();
        world.sessions.end_known(reference.hash()).await.unwrap();
        assert!(world.sessions.by_reference(reference).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn lo_07_a_session_is_listed_until_its_delete_is_confirmed() {
        let world = World::new();
        let id = begin_at(&world, "main", "alice").await;
        world.store.outage.begin(&["delete"], Fails::Before);
        let reference = world.sessions.reference(&id);
        assert!(world.sessions.end_known(reference.hash()).await.is_err());
        // Or whoever asks once more would be told that it is done.
        assert!(world.sessions.by_reference(reference).await.unwrap().is_some());
        assert_eq!(
            world
                .sessions
                .of_user("alice", None, Wanted::There)
                .await
                .unwrap()
                .len(),
            1
        );
        world.store.outage.end();
        world.settle().await;
        assert_eq!(
            world
                .sessions
                .of_user("alice", None, Wanted::There)
                .await
                .unwrap(),
            []
        );
    }

    #[tokio::test]
    async fn what_another_deployment_entered_is_not_shown() {
        let world = World::new();
        let id = begin_at(&world, "main", "alice").await;
        let keys = key_ring("https://other.example.com", 1);
        let other = replica(
            &world.store,
            keys,
            std::slice::from_ref(&world.provider),
            &world.clock,
            &world.tasks,
        );
        assert_eq!(other.by_reference(other.reference(&id)).await.unwrap(), None);
        assert_eq!(other.of_user("alice", None, Wanted::There).await.unwrap(), []);
    }
}
