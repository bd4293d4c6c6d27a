//! Jobs as people have them: some with a name, a group or a label, and few that still run.

use nodejobs_core::job::{Definition, ExitStatus, JobState, Process, ResourceUsage};
use nodejobs_core::spec::{Command, JobSpec, LaunchContext};
use nodejobs_core::store::{DocumentChange, DocumentKind, JobChange, Unit};
use nodejobs_core::time::{BootTime, Moment};
use nodejobs_core::{JobId, Status, Timestamp};

/// What a login shell exports.
pub(crate) const VARIABLES: usize = 40;
/// How many names, and values of the label `project`, there are.
pub(crate) const NAMES: usize = 1000;
pub(crate) const PROJECTS: usize = 50;

pub(crate) fn id(number: usize) -> JobId {
    JobId::new(&format!("job-{number:010}")).expect("valid")
}

pub(crate) fn moment(number: usize) -> Moment {
    let millis = i64::try_from(number).expect("small");
    Moment { wall: Timestamp::from_millis(1_784_000_000_000 + millis), boot: BootTime(1 + number as u64) }
}

/// As the command line sends it.
pub(crate) fn spec(number: usize) -> JobSpec {
    let words = ["/usr/bin/convert", "-resize", "800x600", "input-0001.png", "output-0001.png"];
    let variables = (0..VARIABLES).map(|index| (format!("VARIABLE_{index}"), "/usr/share/some/value"));
    let path = ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin");
    let context = LaunchContext {
        environment: variables.chain([path]).map(|(name, value)| (name.into(), value.into())).collect(),
        ..LaunchContext::default()
    };
    let spec = JobSpec::new(Command::argv(words), "/home/somebody/project").context(context);
    spec.submit_key(format!("{number:032x}"))
}

/// As the owner makes it; some of them have a name, a group or a label.
pub(crate) fn definition(number: usize) -> Definition {
    let mut definition = plain(&spec(0), number);
    definition.name = number.is_multiple_of(10).then(|| format!("name-{}", number / 10 % NAMES));
    definition.group = number.is_multiple_of(4).then(|| "nightly".to_owned());
    if number.is_multiple_of(5) {
        definition.labels.insert("project".to_owned(), format!("p{}", number / 5 % PROJECTS));
    }
    definition
}

/// One with neither.
pub(crate) fn plain(spec: &JobSpec, number: usize) -> Definition {
    let logs = "/home/somebody/.local/state/nodejobs/logs".into();
    let mut definition = Definition::new(spec, logs, moment(number).wall);
    definition.submit_key = Some(format!("{number:032x}"));
    definition
}

pub(crate) fn process(number: usize) -> Process {
    let handle = format!("5c1e0a4f-0000-4000-8000-000000000000:4026531836:{number}:67890:0011223344556677");
    Process { handle, pid: u32::try_from(number % 30_000 + 100).ok() }
}

pub(crate) const USAGE: ResourceUsage = ResourceUsage { cpu_ms: 12, peak_memory_kib: 3456 };

pub(crate) fn state(number: usize, status: Status) -> JobState {
    // Each status has its time, as in life.
    let at = moment(number + status as usize);
    let mut state = JobState::new(1, status, at.wall);
    state.launch_asked = at.boot;
    if !matches!(status, Status::Queued | Status::Starting) {
        state.process = Some(process(number));
        state.started = Some(at);
    }
    if status.is_terminal() {
        state.ended = Some(at);
        state.exit = Some(ExitStatus::Code(i32::from(status != Status::Finished)));
        state.usage = Some(USAGE);
    }
    state
}

/// What a submit writes: the job, and its environment if that is not there yet.
pub(crate) fn insert(number: usize, status: Status, definition: Definition) -> Unit {
    let context = DocumentChange::PutIfAbsent {
        kind: DocumentKind::Context,
        key: definition.context_key.clone(),
        body: vec![b'x'; VARIABLES * 40],
    };
    let (definition, state) = (Box::new(definition), state(number, status));
    Unit { job: Some(JobChange::Insert { id: id(number), definition, state }), documents: vec![context] }
}

pub(crate) fn update(number: usize, expected: u64, status: Status) -> Unit {
    JobChange::Update { id: id(number), expected, state: state(number, status) }.into()
}

/// The three commits of these jobs: starting, running, finished.
pub(crate) fn lives(numbers: std::ops::Range<usize>) -> [Vec<Unit>; 3] {
    [
        numbers.clone().map(|number| insert(number, Status::Starting, definition(number))).collect(),
        numbers.clone().map(|number| update(number, 1, Status::Running)).collect(),
        numbers.map(|number| update(number, 2, Status::Finished)).collect(),
    ]
}
