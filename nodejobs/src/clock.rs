//! Hears of it when somebody sets the wall clock: jobs that wait for a time on it are then due at another moment.

use std::io;
use std::os::fd::AsFd;
use std::sync::Weak;

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::net::unix::pipe;

use crate::owner::Owner;

/// Tells the owner each time the clock is set, as long as there is an owner.
pub(crate) async fn watch(owner: Weak<Owner>) {
    if let Err(error) = tell(&owner).await {
        log::warn!("changes of the clock are not heard of, so a job for a set time may start late: {error}");
    }
}

async fn tell(owner: &Weak<Owner>) -> io::Result<()> {
    let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    arm(&timer)?;
    // Tokio's only safe way to wait for a descriptor it has no type for.
    let timer = pipe::Receiver::from_owned_fd_unchecked(timer)?;
    loop {
        timer.readable().await?;
        match timer.try_read(&mut [0; 8]) {
            // The kernel's way to say that the clock was set. A timer that is cancelled so has to be set again.
            Err(error) if error.raw_os_error() == Some(Errno::CANCELED.raw_os_error()) => {
                arm(&timer)?;
                let told = owner.upgrade().map(|owner| owner.clock_set());
                if !matches!(told, Some(Ok(()))) {
                    return Ok(());
                }
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            // Nothing yet; its own time is far beyond ours.
            Ok(_) | Err(_) => {}
        }
    }
}

/// Sets it to a time that does not come, so that it tells of nothing but the clock.
fn arm(timer: impl AsFd) -> io::Result<()> {
    let never = Timespec { tv_sec: i64::from(i32::MAX) * 100, tv_nsec: 0 };
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    timerfd_settime(timer, flags, &Itimerspec { it_interval: zero, it_value: never })?;
    Ok(())
}
