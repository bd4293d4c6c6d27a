//! The user's own terminal while it shows that of a job, and the signals that concern it.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nodejobs::signal::Signal;
use nodejobs::spec::TerminalSize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};

/// Ends an attachment, which has the terminal's modes restored first.
const ENDING: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// A terminal on which every key goes to somebody else. Dropped, it is as it was.
pub(super) struct RawTerminal(Termios);

pub(super) fn is_terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

pub(super) fn size() -> TerminalSize {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
            TerminalSize { rows: size.ws_row, columns: size.ws_col }
        }
        _ => TerminalSize::default(),
    }
}

impl RawTerminal {
    pub(super) fn make() -> io::Result<Self> {
        let modes = tcgetattr(io::stdin())?;
        let mut raw = modes.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(modes))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Colours and a hidden cursor are the job's, and it may go on with them.
        let mut out = io::stdout();
        let _ = out.write_all(b"\x1b[0m\x1b[?25h\r\n").and_then(|()| out.flush());
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Hears of signals by descriptors.
pub(super) struct Signals {
    resized: UnixStream,
    ended: UnixStream,
    /// The one that ends this, 0 as long as there is none.
    which: Arc<AtomicUsize>,
}

impl Signals {
    pub(super) fn watch() -> io::Result<Self> {
        let which = Arc::new(AtomicUsize::new(0));
        let ((resized, on_resize), (ended, on_end)) = (UnixStream::pair()?, UnixStream::pair()?);
        signal_hook::low_level::pipe::register(SIGWINCH, on_resize)?;
        for signal in ENDING {
            // Noted before it is told.
            signal_hook::flag::register_usize(signal, Arc::clone(&which), signal.unsigned_abs() as usize)?;
            signal_hook::low_level::pipe::register(signal, on_end.try_clone()?)?;
        }
        resized.set_nonblocking(true)?;
        Ok(Self { resized, ended, which })
    }

    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.resized.as_fd(), self.ended.as_fd()]
    }

    /// Whether the size may have changed since this was last asked.
    pub(super) fn was_resized(&self) -> bool {
        (&self.resized).read(&mut [0; 64]).is_ok_and(|length| length > 0)
    }

    pub(super) fn ending(&self) -> Option<Signal> {
        Signal::from_number(i32::try_from(self.which.load(Ordering::SeqCst)).ok()?).ok()
    }
}
