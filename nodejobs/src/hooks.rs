//! Runs `[[hooks]]` for events, beside the jobs and never before an event is on disk.
//!
//! The number of the last event whose hooks are through is kept in the store, so the next owner goes on behind it: a hook is
//! run at least once for each event, and a second time if the owner was killed before that was written. What a killed owner
//! has left running is ended before. Hooks wait in the store, as events that have not been read yet; at most
//! [`AT_A_TIME`] run.

pub(crate) mod run;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use nodejobs_core::store::{DocumentChange, DocumentKind, JobEvent};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::ProblemKind;
use crate::config::{Config, Hook};
use crate::error::Error;
use crate::owner::Owner;

/// How many hooks run at a time.
const AT_A_TIME: usize = 4;
/// How many events are read at a time.
const EVENTS: usize = 256;
/// How many events without a hook may be read again by the next owner.
const UNWRITTEN: u64 = 4096;
/// How long an owner that leaves waits for the hooks that run. Then they are killed, and the next owner runs them again.
const LEAVING: Duration = Duration::from_millis(300);
/// After trouble with the store.
const RETRY: Duration = Duration::from_secs(10);

/// The document with the number of the last event whose hooks are through. Without hooks there is none.
const PLACE: &str = "hooks";

/// Runs hooks until the owner leaves.
pub(crate) async fn serve(owner: &Arc<Owner>) {
    let mut config = owner.config.subscribe();
    while !owner.hub.is_leaving() {
        let hooks = config.borrow_and_update().hooks.clone();
        if let Err(error) = serve_these(owner, hooks, &mut config).await
            && !owner.hub.is_leaving()
        {
            log::warn!("hooks cannot be run now: {}", error.to_problem());
            let _ = owner.hub.unless_left(tokio::time::sleep(RETRY)).await;
        }
        owner.hooks_busy.send_replace(false);
    }
}

/// Returns when there are others, or the owner leaves.
async fn serve_these(
    owner: &Arc<Owner>,
    hooks: Vec<Hook>,
    config: &mut watch::Receiver<Arc<Config>>,
) -> Result<(), Error> {
    if hooks.is_empty() {
        forget_place(owner).await?;
        return owner.hub.unless_left(changed(config, &hooks)).await;
    }
    Dispatch::begin(owner, hooks).await?.serve(config).await
}

/// Returns when the settings have other hooks.
async fn changed(config: &mut watch::Receiver<Arc<Config>>, hooks: &[Hook]) {
    // The sender is in the owner.
    let _ = config.wait_for(|config| config.hooks != hooks).await;
}

/// Hooks that come later begin with what happens then.
async fn forget_place(owner: &Owner) -> Result<(), Error> {
    let there = owner.blocking(|store| Ok(store.document(DocumentKind::Meta, PLACE)?.is_some())).await?;
    if there {
        owner.keep(vec![DocumentChange::Remove { kind: DocumentKind::Meta, key: PLACE.to_owned() }]).await?;
    }
    Ok(())
}

/// The mark of all hooks of a directory. An id does not begin with a dot, so it is no job's.
fn mark(owner: &Owner) -> String {
    format!("{}:.hook:", owner.directory_id)
}

/// Hooks that are run for events.
struct Dispatch<'a> {
    owner: &'a Arc<Owner>,
    hooks: Vec<Arc<Hook>>,
    /// The last event that was read.
    read: u64,
    /// The place as it is in the store.
    written: u64,
    /// What is to be run for events that were read.
    waiting: VecDeque<(JobEvent, usize)>,
    /// How many hooks are not through, by the event.
    open: BTreeMap<u64, usize>,
    running: JoinSet<u64>,
}

impl<'a> Dispatch<'a> {
    /// Goes on behind the last event whose hooks are through, or from now on where there were no hooks.
    async fn begin(owner: &'a Arc<Owner>, hooks: Vec<Hook>) -> Result<Self, Error> {
        let mark = mark(owner);
        let place = owner.blocking(move |store| {
            let Some(body) = store.document(DocumentKind::Meta, PLACE)? else {
                return Ok(Err(store.counters()?.last_event));
            };
            // By an earlier owner, who knows what of.
            end_what_was_left(&mark);
            let place = str::from_utf8(&body).ok().and_then(|text| text.parse::<u64>().ok());
            place.map(Ok).ok_or_else(|| {
                let message = "the store is damaged at document meta 'hooks'; restore it from a backup";
                Error::new(ProblemKind::Unavailable, message)
            })
        });
        let (place, is_written) = match place.await? {
            Ok(place) => (place, true),
            Err(newest) => (newest, false),
        };
        let hooks = hooks.into_iter().map(Arc::new).collect();
        let mut dispatch = Self {
            owner,
            hooks,
            read: place,
            written: place,
            waiting: VecDeque::new(),
            open: BTreeMap::new(),
            running: JoinSet::new(),
        };
        if !is_written {
            dispatch.write(place).await?;
        }
        Ok(dispatch)
    }

    async fn serve(mut self, config: &mut watch::Receiver<Arc<Config>>) -> Result<(), Error> {
        let hooks: Vec<Hook> = self.hooks.iter().map(|hook| (**hook).clone()).collect();
        let mut newest = self.owner.hub.listeners.all();
        let are_others = loop {
            if self.waiting.is_empty() && self.running.len() < AT_A_TIME {
                // Before the look, so that an event after it is heard of.
                newest.borrow_and_update();
                self.read().await?;
            }
            while self.running.len() < AT_A_TIME
                && let Some((event, number)) = self.waiting.pop_front()
            {
                let (owner, hook) = (Arc::clone(self.owner), Arc::clone(&self.hooks[number]));
                let mark = format!("{}{}", mark(self.owner), event.seq);
                self.running.spawn(async move {
                    let name = format!("hook {}", number + 1);
                    run::run(&owner, &hook, &name, None, &event, &mark).await;
                    event.seq
                });
            }
            self.owner.hooks_busy.send_if_modified(|busy| {
                let is_busy = !self.open.is_empty();
                std::mem::replace(busy, is_busy) != is_busy
            });
            tokio::select! {
                Some(through) = self.running.join_next() => {
                    self.through(through);
                    while let Some(through) = self.running.try_join_next() {
                        self.through(through);
                    }
                    self.write_place().await?;
                }
                _ = newest.changed(), if self.waiting.is_empty() && self.running.len() < AT_A_TIME => {}
                () = self.owner.hub.left() => break false,
                () = changed(config, &hooks) => break true,
            }
        };
        if are_others {
            // Those that run have their timeouts, and others wait for them.
            let owner = self.owner;
            let _ = owner.hub.unless_left(self.end()).await;
        }
        let in_time = tokio::time::timeout(LEAVING, self.end()).await.is_ok();
        self.write_place().await?;
        if !in_time {
            log::info!(
                "left {} hooks that did not end in time; the next owner runs them again",
                self.running.len()
            );
            let mark = mark(self.owner);
            self.owner
                .blocking(move |_| {
                    end_what_was_left(&mark);
                    Ok(())
                })
                .await?;
        }
        Ok(())
    }

    /// Returns once nothing runs any more.
    async fn end(&mut self) {
        while let Some(through) = self.running.join_next().await {
            self.through(through);
        }
    }

    /// Reads on, up to the first events that have hooks.
    async fn read(&mut self) -> Result<(), Error> {
        loop {
            let after = self.read;
            let events = self.owner.blocking(move |store| Ok(store.events(after, EVENTS)?)).await?;
            let Some(last) = events.last() else { return Ok(()) };
            self.read = last.seq;
            let all = events.len() < EVENTS;
            for event in events {
                for (number, hook) in self.hooks.iter().enumerate() {
                    if hook.on.contains(&event.status) {
                        self.waiting.push_back((event.clone(), number));
                        *self.open.entry(event.seq).or_default() += 1;
                    }
                }
            }
            if self.open.is_empty() && self.read - self.written >= UNWRITTEN {
                self.write(self.read).await?;
            }
            if all || !self.waiting.is_empty() {
                return Ok(());
            }
        }
    }

    fn through(&mut self, event: Result<u64, tokio::task::JoinError>) {
        match event {
            Ok(seq) => {
                if let Some(count) = self.open.get_mut(&seq) {
                    *count -= 1;
                    if *count == 0 {
                        self.open.remove(&seq);
                    }
                }
            }
            // Its event stays open, so the next owner runs it again.
            Err(error) => log::error!("a hook could not be run to its end: {error}"),
        }
    }

    async fn write_place(&mut self) -> Result<(), Error> {
        let place = self.open.keys().next().map_or(self.read, |first| first - 1);
        if place > self.written { self.write(place).await } else { Ok(()) }
    }

    async fn write(&mut self, place: u64) -> Result<(), Error> {
        let body = place.to_string().into_bytes();
        let change = DocumentChange::Put { kind: DocumentKind::Meta, key: PLACE.to_owned(), body };
        self.owner.keep(vec![change]).await?;
        self.written = place;
        Ok(())
    }
}

fn end_what_was_left(mark: &str) {
    match nodejobs_proc::marked::kill_marked(mark) {
        Ok(left) if left.is_empty() => {}
        Ok(left) => log::warn!("processes of hooks could not be killed: {left:?}"),
        Err(error) => log::warn!("hooks that still run cannot be looked for: {error}"),
    }
}
