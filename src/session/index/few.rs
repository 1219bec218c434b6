//! A bound on one user's sessions (`session.max_per_user`): at one login too many the oldest ends.

use super::{Wanted, Whose};
use crate::session::record::Payload;
use crate::session::{SessionError, Sessions};
use std::sync::Arc;
use std::time::Duration;

impl Sessions {
    /// Dates a session after all others of its user, however far this replica's clock lags: or `max_per_user` would take
    /// the login that has just happened for the oldest.
    pub(in crate::session) async fn date_last(
        &self,
        record: &mut Payload,
        issuer: &str,
    ) -> Result<(), SessionError> {
        let sub = &record.sub;
        let found = self.find(Whose::Sub { issuer, sub }, Wanted::There).await?;
        if let Some(newest) = found.last() {
            record.begun = record.begun.max(newest.begun.plus(Duration::from_millis(1)));
        }
        Ok(())
    }

    /// Ends a user's oldest sessions until there are no more than `session.max_per_user`. Best effort, after a login: the
    /// next one sees to what is left.
    pub(in crate::session) async fn keep_few(self: &Arc<Self>, issuer: &str, sub: &str) {
        let Some(max) = self.max_per_user else {
            return;
        };
        let found = match self.find(Whose::Sub { issuer, sub }, Wanted::There).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "it is not known how many sessions a user has: none was ended");
                return;
            }
        };
        let too_many = found.len().saturating_sub(max);
        for listed in found.into_iter().take(too_many) {
            let (session, provider) = (listed.reference(), &listed.provider);
            let reason = "max_per_user";
            match self.end_known(listed.reference().hash()).await {
                Ok(true) => {
                    tracing::info!(target: "cloakroom::audit", event = "session_ended", reason, %session, provider);
                }
                // Another login was quicker.
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(
                        target: "cloakroom::audit", event = "session_ended", reason, %session, provider, %error, "incomplete"
                    );
                }
            }
        }
    }
}
