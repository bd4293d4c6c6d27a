//! Groups, named resources and edits, as far as the store and the next owner are concerned.

use super::*;
use crate::group::{Group, GroupStatus, Slots};
use crate::store::DocumentKind;

impl Bench {
    fn with_gpus(count: u32) -> Self {
        let mut bench = Self::new();
        let capacity = Capacity { resources: [("gpu".to_owned(), count)].into(), ..Capacity::default() };
        bench.engine = Engine::with_capacity(1, capacity);
        bench
    }

    fn submit_as(&mut self, name: &str, spec: fn(JobSpec) -> JobSpec) -> Vec<Effect> {
        let spec = spec(JobSpec::new(Command::argv(["true"]), "/"));
        let input = self.submission_of(&id(name), &spec);
        self.turn(vec![input])
    }

    fn group(&self, name: &str) -> Option<GroupStatus> {
        self.engine.groups().into_iter().find(|group| group.name == name)
    }

    fn edit(&self, name: &str, edits: Edits) -> Input {
        Input::Edit(Box::new(Edit { ticket: 5, job: self.job(name), edits }))
    }

    /// A turn whose commit fails.
    fn not_stored(&mut self, input: Input) -> Vec<Effect> {
        let mut turn = self.engine.begin_turn();
        self.engine.handle(input, self.now, &mut turn);
        self.engine.settle(turn, None, self.now).expect("nobody else writes")
    }
}

fn set(name: &str, slots: u32) -> Input {
    let change = GroupChange { slots: Some(Slots::Limited(slots)), ..GroupChange::default() };
    Input::Group { ticket: 9, name: name.to_owned(), change }
}

fn pause(name: &str, paused: bool) -> Input {
    let change = GroupChange { paused: Some(paused), ..GroupChange::default() };
    Input::Group { ticket: 9, name: name.to_owned(), change }
}

fn priority(priority: i32) -> Edits {
    Edits { priority: Some(priority), ..Edits::default() }
}

#[test]
fn a_restart_runs_what_the_job_was_changed_to_though_the_store_does_not_have_it_yet() {
    let mut bench = Bench::with_gpus(1);
    let _ = bench.submit_as("a", |spec| spec.need("gpu", 1));
    let _ = bench.submit_as("b", |spec| spec.need("gpu", 1));
    let none = Edits { needs: [("gpu".to_owned(), 0)].into(), ..Edits::default() };
    let edit = bench.edit("b", none);
    assert_eq!(answers(&bench.not_stored(edit)), [&Answer::NotStored]);
    assert_eq!(bench.job("b").state.status, Status::Queued, "as far as the store knows");
    let restart = bench.restart("b");
    let _ = bench.not_stored(restart);
    let _ = bench.turn(Vec::new());
    let called_off = not_started("b", StartFailureKind::CalledOff, bench.now);
    let _ = bench.turn(vec![called_off]);
    let job = bench.job("b");
    assert_eq!((job.state.attempt, job.state.status), (2, Status::Starting), "{job:?}");
    assert!(job.definition.needs.is_empty() && job.state.assigned.is_empty(), "{job:?}");
}

#[test]
fn a_group_counts_once_it_is_on_disk() {
    let mut bench = Bench::new();
    let effects = bench.not_stored(set("g", 1));
    assert_eq!((answers(&effects), bench.group("g")), (vec![&Answer::NotStored], None));
    assert!(bench.engine.begin_turn().is_empty(), "it is not tried again");
    let effects = bench.submit_as("a", |spec| spec.group("g"));
    assert!(matches!(answers(&effects)[..], [Answer::Refused(Refusal::UnknownGroup { .. })]), "{effects:?}");

    let effects = bench.turn(vec![set("g", 1)]);
    assert_eq!(answers(&effects), [&Answer::GroupChanged]);
    let stored = bench.store.document(DocumentKind::Group, "g").expect("memory").expect("it is there");
    let stored: Group = serde_json::from_slice(&stored).expect("a group");
    assert_eq!(stored, Group { slots: Some(1), paused: false });
    let _ = bench.submit_as("a", |spec| spec.group("g"));
    let _ = bench.submit_as("b", |spec| spec.group("g"));
    assert_eq!([bench.state("a").status, bench.state("b").status], [Status::Starting, Status::Queued]);
    let _ = bench.not_stored(set("g", 2));
    assert_eq!(bench.group("g").and_then(|group| group.slots), Some(1));
    let _ = bench.turn(vec![set("g", 2)]);
    assert_eq!(bench.engine.next_deadline(), Some(BootTime::default()), "somebody has a turn now");
    let effects = bench.turn(vec![Input::Tick]);
    assert_eq!((launches(&effects), bench.engine.next_deadline()), (1, None));
}

#[test]
fn a_group_with_jobs_stays() {
    let mut bench = Bench::new();
    let _ = bench.turn(vec![set("g", 1), set("h", 1)]);
    let _ = bench.submit_as("a", |spec| spec.group("g").start(Start::AfterMs(5_000)));
    let remove = |name: &str| Input::RemoveGroup { ticket: 9, name: name.to_owned() };
    for (name, refusal) in [
        ("g", Refusal::HasJobs { name: "g".to_owned(), running: 0, others: 1 }),
        ("default", Refusal::DefaultGroup),
        (
            "x",
            Refusal::UnknownGroup {
                name: "x".to_owned(),
                known: ["default", "g", "h"].map(str::to_owned).into(),
            },
        ),
    ] {
        let effects = bench.turn(vec![remove(name)]);
        assert_eq!(answers(&effects), [&Answer::Refused(refusal)]);
    }
    let effects = bench.not_stored(remove("h"));
    assert_eq!((answers(&effects), bench.group("h").is_some()), (vec![&Answer::NotStored], true));
    let _ = bench.turn(vec![bench.stop("a")]);
    let _ = bench.turn(vec![remove("g"), remove("h")]);
    assert_eq!(bench.engine.groups().len(), 1);
    assert_eq!(bench.store.document(DocumentKind::Group, "g").expect("memory"), None);
    // Nobody runs again in what is gone.
    let effects = bench.turn(vec![bench.restart("a")]);
    assert!(matches!(answers(&effects)[..], [Answer::Refused(Refusal::UnknownGroup { .. })]), "{effects:?}");
}

#[test]
fn the_next_owner_knows_groups_and_who_has_which_of_a_resource() {
    let mut bench = Bench::with_gpus(2);
    let _ = bench.turn(vec![set("g", 4)]);
    for name in ["a", "b", "c"] {
        let _ = bench.submit_as(name, |spec| spec.group("g").need("gpu", 1));
    }
    let assigned = |bench: &Bench, name: &str| bench.state(name).assigned.get("gpu").cloned();
    assert_eq!(["a", "b", "c"].map(|name| assigned(&bench, name)), [Some(vec![0]), Some(vec![1]), None]);
    let _ = bench.turn(vec![pause("g", true)]);
    let _ = bench.turn(vec![bench.started("a"), bench.started("b")]);

    let capacity = bench.engine.queue.capacity().clone();
    let live = ["a", "b", "c"].map(|name| bench.job(name)).to_vec();
    let groups = bench.store.documents(DocumentKind::Group, "", None, 10).expect("memory");
    bench.engine = Engine::with_capacity(2, capacity);
    bench.engine.restore_groups(&groups).expect("understood");
    let last_event = bench.store.counters().expect("memory").last_event;
    let _ = bench.engine.restore(live, HashMap::new(), last_event, bench.now);
    let mut turn = bench.engine.begin_turn();
    bench.engine.resume(bench.now, &mut turn);
    let _ = bench.commit(turn);
    let _ = bench.turn(vec![bench.exited("a", 0, false)]);
    assert_eq!(bench.state("c").status, Status::Queued, "it is still paused");
    assert_eq!(assigned(&bench, "a"), Some(vec![0]), "as it was");
    let _ = bench.turn(vec![pause("g", false)]);
    let _ = bench.turn(vec![Input::Tick]);
    assert_eq!((bench.state("c").status, assigned(&bench, "c")), (Status::Starting, Some(vec![0])));
    assert!(bench.engine.restore_groups(&[("x".to_owned(), b"{".to_vec())]).is_err());
}

#[test]
fn who_finds_no_room_gives_back_what_it_had() {
    let mut bench = Bench::with_gpus(1);
    let _ = bench.submit_as("a", |spec| spec.need("gpu", 1));
    let _ = bench.submit_as("b", |spec| spec.need("gpu", 1));
    let effects = bench.turn(vec![not_started("a", StartFailureKind::NoRoom, bench.now)]);
    assert_eq!((launches(&effects), bench.state("a").assigned.len()), (1, 0));
    assert_eq!(bench.state("b").assigned["gpu"], [0]);
}

#[test]
fn an_edit_changes_a_queued_job_and_stays_decided() {
    let mut bench = Bench::new();
    let _ = bench.turn(vec![set("default", 1)]);
    for name in ["a", "b", "c"] {
        let _ = bench.submit_as(name, |spec| spec);
    }
    let effects = bench.turn(vec![bench.edit("c", priority(1))]);
    assert_eq!(answers(&effects), [&Answer::Edited(id("c"))]);
    assert_eq!(bench.job("c").definition.priority, 1);
    let effects = bench.turn(vec![bench.edit("a", priority(1))]);
    assert_eq!(answers(&effects), [&Answer::Conflict { status: Some(Status::Starting) }]);
    let unknown = Edits { group: Some("x".to_owned()), ..Edits::default() };
    let effects = bench.turn(vec![bench.edit("b", unknown)]);
    assert!(matches!(answers(&effects)[..], [Answer::Refused(Refusal::UnknownGroup { .. })]), "{effects:?}");

    let edit = bench.edit("b", priority(2));
    let effects = bench.not_stored(edit);
    assert_eq!((answers(&effects), bench.job("b").definition.priority), (vec![&Answer::NotStored], 0));
    // An edit of what the store does not have yet.
    let stale = bench.turn(vec![]);
    assert!(stale.is_empty());
    assert_eq!(bench.job("b").definition.priority, 2, "it was written with the next commit");
    let _ = bench.turn(vec![bench.started("a")]);
    let effects = bench.turn(vec![bench.exited("a", 0, false)]);
    let launched: Vec<_> =
        effects.iter().filter_map(Effect::launched).map(|attempt| attempt.id.clone()).collect();
    assert_eq!(launched, [id("b")]);
}

#[test]
fn a_job_that_is_restarted_by_its_policy_is_what_it_was_made() {
    let mut bench = Bench::new();
    let _ = bench.turn(vec![set("default", 1)]);
    let _ = bench.submit_as("a", |spec| spec);
    let _ = bench.submit_as("b", |mut spec| {
        spec.policy.restart = crate::spec::Restart::Always;
        spec
    });
    let command = Some(Command::argv(["other"]));
    let _ = bench.turn(vec![bench.edit("b", Edits { command: command.clone(), ..Edits::default() })]);
    let _ = bench.turn(vec![bench.started("a")]);
    let _ = bench.turn(vec![bench.exited("a", 0, false)]);
    let _ = bench.turn(vec![bench.started("b")]);
    let _ = bench.turn(vec![bench.exited("b", 0, false)]);
    let job = bench.job("b");
    assert_eq!((job.state.attempt, Some(job.definition.command)), (2, command));
}
