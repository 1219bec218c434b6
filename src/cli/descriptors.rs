//! How many files and connections this process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// What is open beside connections: sockets of the store and the provider, files, logs, the cores' own.
const BESIDE: u64 = 256;

/// Takes as many as the system allows (the hard limit of `RLIMIT_NOFILE`, `setrlimit(2)`): the soft limit is 1024 in most
/// shells, for the sake of programs that use `select`, and with so few a crowd of browsers would not be taken in. A warning,
/// where what is allowed is too little for so many connections, even if none of them has one to its upstream.
pub(super) fn raise(max_connections: usize) -> Option<String> {
    let mut limit = getrlimit(Resource::Nofile);
    let (before, mut most) = (limit.current, limit.maximum.unwrap_or(u64::MAX));
    limit.current = limit.maximum;
    if before.is_some_and(|before| before < most) && setrlimit(Resource::Nofile, limit).is_err() {
        // What forbids it leaves the limit as it was, and the warning names that.
        most = before.unwrap_or(most);
    }
    let wanted = BESIDE.saturating_add(u64::try_from(max_connections).unwrap_or(u64::MAX));
    (most < wanted).then(|| {
        format!(
            "at most {most} files and connections may be open, and `server.max_connections` ({max_connections}) may take {wanted} and more: \
             raise the hard limit (systemd: LimitNOFILE; containers: --ulimit nofile) or lower `server.max_connections`"
        )
    })
}
