//! What the backend asks of the owner: what to launch, and where to report.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use nodejobs_core::backend::{BackendHost, BackendReport, LaunchInput, LaunchSpec, StartFailure};
use nodejobs_core::group::resource_variables;
use nodejobs_core::id::AttemptId;
use nodejobs_core::job::{Input as JobInput, Origin};
use nodejobs_core::logs::LogLayout;
use nodejobs_core::spec::{ARRAY_VARIABLE, INDEX_VARIABLE, LaunchContext, Values, value_variable};
use nodejobs_core::store::{DocumentKind, JobStore, StoreError};
use nodejobs_core::{JobId, RawText};

use super::Message;
use crate::error::Error;
use crate::users::Account;

/// What the backend asks of the owner.
pub(super) struct Host {
    store: Arc<dyn JobStore>,
    inputs: Mutex<Sender<Message>>,
    /// Jobs of one batch or one shell share it.
    last_context: Mutex<Option<(String, LaunchContext)>>,
}

impl Host {
    pub(super) fn new(store: Arc<dyn JobStore>, inputs: Sender<Message>) -> Self {
        Self { store, inputs: Mutex::new(inputs), last_context: Mutex::new(None) }
    }

    fn context(&self, key: &str) -> Result<LaunchContext, StartFailure> {
        let mut last = self.last_context.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, context)) = last.as_ref().filter(|(known, _)| known == key) {
            return Ok(context.clone());
        }
        let body = self.store.document(DocumentKind::Context, key).map_err(unreadable)?;
        let body = body.ok_or_else(|| {
            StartFailure::permanent(format!("its launch context {key} is not in the store"))
        })?;
        let context: LaunchContext = serde_json::from_slice(&body).map_err(|error| {
            StartFailure::permanent(format!("its launch context {key} cannot be understood: {error}"))
        })?;
        *last = Some((key.to_owned(), context.clone()));
        Ok(context)
    }

    fn input(&self, input: JobInput) -> Result<LaunchInput, StartFailure> {
        Ok(match input {
            JobInput::Null => LaunchInput::Null,
            JobInput::File(path) => LaunchInput::File(path),
            JobInput::Pipe => LaunchInput::Pipe,
            JobInput::Terminal(size) => LaunchInput::Terminal(size),
            JobInput::Stored(key) => {
                let body = self.store.document(DocumentKind::Input, &key).map_err(unreadable)?;
                LaunchInput::Bytes(
                    body.ok_or_else(|| {
                        StartFailure::permanent(format!("its input {key} is not in the store"))
                    })?,
                )
            }
        })
    }
}

impl BackendHost for Host {
    fn launch_spec(&self, attempt: &AttemptId) -> Result<LaunchSpec, StartFailure> {
        let job = self.store.job(&attempt.id).map_err(unreadable)?;
        let job = job.filter(|job| job.state.attempt == attempt.attempt);
        let job = job.ok_or_else(|| StartFailure::permanent("it is not in the store"))?;
        let output = job.log_paths();
        let definition = job.definition;
        let limits = definition.policy.limits;
        let mut context = self.context(&definition.context_key)?;
        for (name, value) in resource_variables(&job.state.assigned) {
            context.environment.retain(|(known, _)| known.as_bytes() != name.as_bytes());
            context.environment.push((name.into(), value.into()));
        }
        if let Some(Origin::Element { array, index, values }) = &definition.origin {
            context.environment.extend(element_variables(array, *index, values));
        }
        let mut user = None;
        if let Some(name) = limits.as_ref().and_then(|limits| limits.user.as_ref()) {
            let account = Account::find(name).map_err(StartFailure::permanent)?;
            account.take_over(&mut context);
            user = Some(account.user);
        }
        Ok(LaunchSpec {
            context,
            limits,
            user,
            input: self.input(definition.input)?,
            output,
            makes_directories: definition.logs.layout != LogLayout::File,
            command: definition.command,
            cwd: definition.cwd,
        })
    }

    fn report(&self, report: BackendReport) {
        // Without an owner the report stays with the keeper, and the next owner hears it.
        let _ = self.inputs.lock().unwrap_or_else(PoisonError::into_inner).send(Message::Report(report));
    }

    fn warn(&self, message: String) {
        log::warn!("{message}");
    }
}

/// What an element finds in its environment beside what it was submitted with.
fn element_variables<'v>(
    array: &JobId,
    index: u32,
    values: &'v Values,
) -> impl Iterator<Item = (RawText, RawText)> + use<'v> {
    let own =
        [(ARRAY_VARIABLE.into(), array.as_str().into()), (INDEX_VARIABLE.into(), index.to_string().into())];
    let values = values.iter().map(|(name, value)| (value_variable(name).into(), value.clone()));
    own.into_iter().chain(values)
}

/// What is damaged stays so; anything else may be over soon, such as a want of descriptors.
fn unreadable(error: StoreError) -> StartFailure {
    let is_damage = matches!(error, StoreError::Damaged { .. } | StoreError::UnknownFormat { .. });
    let detail = Error::from(error).to_problem().message;
    if is_damage { StartFailure::permanent(detail) } else { StartFailure::no_room(detail) }
}
