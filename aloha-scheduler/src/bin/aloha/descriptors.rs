//! How many files this process may have open; each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Raises the soft limit to the hard one. Children inherit that, and some take it ill: only for a process without any.
pub(crate) fn raise() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "cannot raise the limit of open files");
    }
}

/// The connections that REST may have: half of the files that may be open, if it is not less that is wished for. The
/// other half is for workers, clients and what is stored.
pub(crate) fn rest_connections(wished: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    let half = limit.map_or(usize::MAX, |files| {
        usize::try_from(files / 2).unwrap_or(usize::MAX)
    });
    if half < wished {
        warn!(
            connections_max = half,
            wished, "REST takes fewer connections, for so few files may be open; raise ulimit -n"
        );
    }
    half.min(wished).max(1)
}
