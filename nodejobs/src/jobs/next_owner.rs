//! What goes on with the next owner when the one there was is gone: a daemon that was killed, or that is restarted.

use std::time::Instant;

use rustix::event::{Timespec, poll};

use crate::client::{Client, ClientError};

/// Between two looks for an owner: nothing tells when a socket gets a listener.
const STEP: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// How long there has been nobody who answers.
#[derive(Debug, Default)]
pub(super) struct NextOwner {
    gone: Option<Instant>,
}

impl NextOwner {
    /// There is one, who has said something.
    pub(super) fn has_come(&mut self) {
        self.gone = None;
    }

    /// Asks again and again while nobody is there, for [a few seconds](Client::NEXT_OWNER). After another error than that
    /// of an owner that is gone there is nothing to wait for.
    ///
    /// # Errors
    /// The first one if nobody comes or `is_over` says so, and what a new owner says.
    pub(super) fn wait<T>(
        &mut self,
        first: ClientError,
        is_over: impl Fn() -> bool,
        mut ask: impl FnMut() -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        if !is_gone(&first) {
            return Err(first);
        }
        let gone = *self.gone.get_or_insert_with(Instant::now);
        loop {
            let _ = poll(&mut [], Some(&STEP));
            if is_over() || gone.elapsed() > Client::NEXT_OWNER {
                return Err(first);
            }
            match ask() {
                Err(error) if is_gone(&error) => {}
                answer => return answer,
            }
        }
    }
}

/// Killed, leaving, or not yet there.
fn is_gone(error: &ClientError) -> bool {
    error.is_broken() || error.is_unavailable() || error.is_no_daemon()
}
