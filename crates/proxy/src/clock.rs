//! The moments given to the core: time since the proxy started, on tokio's clock.

use std::sync::LazyLock;

use model::time::Moment;
use tokio::time::Instant;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Now.
pub(crate) fn now() -> Moment {
    Moment::default() + START.elapsed()
}

/// `moment` on tokio's clock.
pub(crate) fn instant(moment: Moment) -> Instant {
    *START + moment.since(Moment::default())
}
