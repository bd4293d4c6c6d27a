//! Users of the machine, by name: what a job that runs as one of them needs to know.

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;

use nix::unistd::getgrouplist;
use nodejobs_core::RawText;
use nodejobs_core::backend::User;
use nodejobs_core::spec::LaunchContext;

/// A user as the system's databases have it.
pub(crate) struct Account {
    /// Its numbers.
    pub(crate) user: User,
    variables: [(&'static str, RawText); 4],
}

impl Account {
    /// Looks a user up, which may ask a server elsewhere.
    ///
    /// # Errors
    /// In words: there is no such user, or it cannot be found out.
    pub(crate) fn find(name: &str) -> Result<Self, String> {
        let unknown = |error: nix::Error| format!("user '{name}' cannot be looked up: {error}");
        let found = nix::unistd::User::from_name(name).map_err(unknown)?;
        let found = found.ok_or_else(|| format!("there is no user '{name}' on this machine"))?;
        let c_name = CString::new(name).map_err(|_| format!("{name:?} is not the name of a user"))?;
        let groups = getgrouplist(&c_name, found.gid).map_err(unknown)?;
        let groups: Vec<u32> = groups.into_iter().map(nix::unistd::Gid::as_raw).collect();
        if groups.len() > User::MAX_GROUPS {
            return Err(format!(
                "user '{name}' is in {} groups; at most {} can be taken on",
                groups.len(),
                User::MAX_GROUPS
            ));
        }
        let path = |path: std::path::PathBuf| RawText::from(path.into_os_string().into_vec());
        let variables = [
            ("HOME", path(found.dir)),
            ("USER", RawText::from(name)),
            ("LOGNAME", RawText::from(name)),
            ("SHELL", path(found.shell)),
        ];
        Ok(Self { user: User { uid: found.uid.as_raw(), gid: found.gid.as_raw(), groups }, variables })
    }

    /// Sets the variables by which programs know who they run as: those of whoever submitted the job are another's.
    pub(crate) fn take_over(&self, context: &mut LaunchContext) {
        let is_ours =
            |name: &RawText| self.variables.iter().any(|(own, _)| own.as_bytes() == name.as_bytes());
        context.environment.retain(|(name, _)| !is_ours(name));
        let variables = self.variables.iter().map(|(name, value)| (RawText::from(*name), value.clone()));
        context.environment.extend(variables);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_everywhere_and_its_variables_replace_others() {
        let root = Account::find("root").expect("root");
        assert_eq!((root.user.uid, root.user.gid), (0, 0));
        assert!(root.user.groups.contains(&0));
        let variable = |name: &str, value: &str| (RawText::from(name), RawText::from(value));
        let environment = vec![variable("HOME", "/home/x"), variable("A", "b"), variable("USER", "x")];
        let mut context = LaunchContext { environment, ..LaunchContext::default() };
        root.take_over(&mut context);
        assert_eq!(context.variable("USER"), Some(&"root".into()));
        assert_eq!((context.variable("A"), context.environment.len()), (Some(&"b".into()), 5));
    }

    #[test]
    fn who_is_not_there_is_named() {
        let error = Account::find("no-such-user-of-nodejobs").err().expect("nobody");
        assert_eq!(error, "there is no user 'no-such-user-of-nodejobs' on this machine");
    }
}
