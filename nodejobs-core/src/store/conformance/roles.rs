//! What a process that a rule has started does: the part of that rule that is for it.

use std::path::PathBuf;

use super::case::DiskCase;
use super::child::{PLACE, ROLE, Role, say};
use super::{RULES, Suite, crash, flush, openers, room};

pub(super) fn play(suite: &Suite) {
    let Ok(role) = std::env::var(ROLE) else { return };
    let role = Role::ALL.into_iter().find(|known| known.as_str() == role).expect("a role");
    // The test's name is on this line already.
    say("");
    if let Role::Rules = role {
        for rule in RULES {
            say(&format!("rule {} {} {}", rule.group().as_str(), rule.name, rule.statement));
        }
        return;
    }
    let place = PathBuf::from(std::env::var_os(PLACE).expect("a place"));
    let case = DiskCase::new(suite.disk.expect("a store with a path"));
    match role {
        Role::Rules => {}
        Role::Commits => crash::commit_for_ever(&case, &place),
        Role::Abort => crash::commit_and_abort(&case, &place),
        Role::Open => openers::try_to_open(&case, &place),
        Role::Flush => flush::commit_between_marks(&case, &place),
        Role::FullDisk => room::fill_the_disk(&case, &place),
        Role::FullFromTheBeginning => room::begin_on_a_full_disk(&case, &place),
        Role::ReadOnly => room::open_read_only(&case, &place),
    }
}
