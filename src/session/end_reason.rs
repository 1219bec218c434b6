//! Why a session ends without anybody asking for it, while its token is made fresh.
//!
//! Each has a sentence for people (`Display`) and a word for programs, which audit events and metrics share;
//! `deploy/audit.md` lists the words.

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndReason {
    /// RFC 6749 §5.2: the refresh token is "invalid, expired, revoked".
    #[error("the provider says invalid_grant")]
    InvalidGrant,
    /// The same, after an answer of the provider's that may have brought the next refresh token did not come.
    #[error("the provider says invalid_grant, and its answer to an earlier refresh was lost")]
    AnswerLost,
    /// A refresh's ID token is another user's, another issuer's or another client's (Core §12.2).
    #[error("its refresh brought another user's ID token")]
    Mismatch,
    /// The access token has expired, and there is no refresh token.
    #[error("its access token has expired and there is no refresh token")]
    NoRefreshToken,
    /// It is not in the store any more.
    #[error("it is gone")]
    Gone,
}

impl EndReason {
    /// For programs: stays as it is from release to release.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::InvalidGrant => "invalid_grant",
            Self::AnswerLost => "answer_lost",
            Self::Mismatch => "mismatch",
            Self::NoRefreshToken => "no_refresh_token",
            Self::Gone => "gone",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::EndReason as R;

    #[test]
    fn ob_02_each_reason_of_an_event_is_a_word_on_the_page_of_events() {
        let page = include_str!("../../deploy/audit.md");
        for reason in [R::InvalidGrant, R::AnswerLost, R::Mismatch] {
            let row = format!("| `{}` | ", reason.word());
            assert!(page.contains(&row), "{row}");
        }
    }
}
