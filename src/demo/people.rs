//! The invented people who can sign in at the embedded provider.

/// Somebody with an account at the embedded provider.
#[derive(Debug, PartialEq, Eq)]
pub struct Person {
    /// `sub`: locally unique, never reassigned (Core §2).
    pub sub: &'static str,
    /// `name`.
    pub name: &'static str,
    /// What the sign-in form says about them.
    pub about: &'static str,
    /// `email`, on a name that is nobody's (RFC 2606).
    pub email: &'static str,
    /// `groups`.
    pub groups: &'static [&'static str],
    /// `roles`.
    pub roles: &'static [&'static str],
}

/// All of them, in the form's order.
pub const PEOPLE: [Person; 4] = [
    Person {
        sub: "alex",
        name: "Alex",
        about: "Staff. May enter the back office.",
        email: "alex@cloakroom.example",
        groups: &["staff"],
        roles: &["orders.read", "orders.write"],
    },
    Person {
        sub: "sam",
        name: "Sam",
        about: "Customer. The back office stays shut.",
        email: "sam@cloakroom.example",
        groups: &["customers"],
        roles: &["orders.read"],
    },
    Person {
        sub: "robin",
        name: "Robin",
        about: "Auditor. Reads everything, changes nothing.",
        email: "robin@cloakroom.example",
        groups: &["auditors", "staff"],
        roles: &["orders.read", "audit.read"],
    },
    Person {
        sub: "kim",
        name: "Kim",
        about: "Guest. In no group at all.",
        email: "kim@cloakroom.example",
        groups: &[],
        roles: &[],
    },
];

/// The person of that `sub`.
#[must_use]
pub fn find(sub: &str) -> Option<&'static Person> {
    PEOPLE.iter().find(|person| person.sub == sub)
}
