//! Which route a path belongs to: the longest match wins, on whole segments (contract §2 `routes`, 4.2).
//!
//! On a request's way `router` asks here once; a login asks here where its `return_to` would land. INVARIANT: every
//! reading that an upstream could take of the path selects the same place, else the path is refused.

use super::settings::{EncodedSlash, RouteSettings};
use crate::protocol::path::{Ambiguous, RequestPath, is_under};

/// The routes, longest path first, and the prefix that is cloakroom's own.
#[derive(Clone, Debug)]
pub struct RouteTable {
    prefix: String,
    routes: Vec<RouteSettings>,
}

/// What a path belongs to.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// cloakroom's own endpoints.
    Own,
    /// A route, and its number in [`RouteTable::routes`].
    Route(usize, &'a RouteSettings),
    /// Nothing.
    Nowhere,
}

impl RouteTable {
    /// Orders the routes.
    #[must_use]
    pub fn new(prefix: &str, routes: &[RouteSettings]) -> Self {
        let mut routes = routes.to_vec();
        routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
        Self { prefix: prefix.to_owned(), routes }
    }

    /// All routes, longest path first.
    #[must_use]
    pub fn routes(&self) -> &[RouteSettings] {
        &self.routes
    }

    /// The place of a path.
    ///
    /// # Errors
    /// [`Ambiguous`] where an upstream could read the path so that another place were meant: answer 400.
    pub fn place(&self, path: &RequestPath) -> Result<Place<'_>, Ambiguous> {
        let found = self.number(path.decoded());
        if path.other_readings().iter().any(|reading| self.number(reading) != found) {
            return Err(Ambiguous("The path can be read in two ways."));
        }
        let place = match found {
            Number::Own => Place::Own,
            Number::Route(number) => Place::Route(number, &self.routes[number]),
            Number::Nowhere => Place::Nowhere,
        };
        let passes_slash = matches!(place, Place::Route(_, route) if route.encoded_slash == EncodedSlash::Pass);
        if path.has_encoded_slash() && !passes_slash {
            return Err(Ambiguous("The path holds an encoded slash, which this address does not take."));
        }
        Ok(place)
    }

    /// Whether a login may end at this path: not under the prefix in any case, and on no route where nobody may
    /// land from elsewhere. A path that no route serves may be landed at (contract 3.2).
    #[must_use]
    pub fn may_land(&self, path: &RequestPath) -> bool {
        !is_under(&path.decoded().to_ascii_lowercase(), &self.prefix.to_ascii_lowercase())
            && match self.place(path) {
                Ok(Place::Route(_, route)) => route.pages(),
                Ok(Place::Nowhere) => true,
                Ok(Place::Own) | Err(_) => false,
            }
    }

    fn number(&self, path: &str) -> Number {
        if is_under(path, &self.prefix) {
            return Number::Own;
        }
        self.routes.iter().position(|route| is_under(path, &route.path)).map_or(Number::Nowhere, Number::Route)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Number {
    Own,
    Route(usize),
    Nowhere,
}
