//! The provider's metadata (`OpenID` Connect Discovery §3, RFC 8414 §2) and its keys (RFC 7517).
