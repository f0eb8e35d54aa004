//! The ids that an ordinary user may give away in a user namespace of its own: its own one, and a range from `/etc/subuid` and
//! `/etc/subgid`. The kernel lets nobody but root map a range, so `newuidmap` and `newgidmap` do it.
//!
//! Inside, the user is root and its range the rest. So what root in a VM writes is the user's own on the host; what others in
//! the VM write belongs to ids of the range, and only somebody inside such a namespace can change or remove it.

use std::fs;
use std::io;
use std::process::Command;

use nix::unistd::{Uid, User, getegid, geteuid};

/// How many ids a VM has beside root's: as many as a Debian counts on, `nobody` among them.
const COUNT: u32 = 65_535;

/// Who maps which kind of ids, by which file.
const KINDS: [(Kind, &str, &str); 2] =
    [(Kind::Users, "newuidmap", "/etc/subuid"), (Kind::Groups, "newgidmap", "/etc/subgid")];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Users,
    Groups,
}

/// How ids inside are called outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    own_user: u32,
    own_group: u32,
    first_user: u32,
    first_group: u32,
}

impl Mapping {
    /// Returns that of the user who we are; if there is none, what is missing and how to get it.
    pub fn of_own_user() -> Result<Self, String> {
        let uid = geteuid();
        let name = User::from_uid(uid).ok().flatten().map(|user| user.name);
        let [first_user, first_group] = KINDS.map(|(kind, _, file)| {
            let table = fs::read_to_string(file).unwrap_or_default();
            first_of(&table, uid, name.as_deref()).ok_or_else(|| missing(kind, file, uid, name.as_deref()))
        });
        Ok(Self {
            own_user: uid.as_raw(),
            own_group: getegid().as_raw(),
            first_user: first_user?,
            first_group: first_group?,
        })
    }

    /// Gives a process in a new user namespace its ids. Called by a process outside.
    pub fn write(&self, pid: i32) -> io::Result<()> {
        for (kind, program, _) in KINDS {
            let (own, first) = match kind {
                Kind::Users => (self.own_user, self.first_user),
                Kind::Groups => (self.own_group, self.first_group),
            };
            // Inside, outside, how many; twice.
            let map = [0, own, 1, 1, first, COUNT].map(|number| number.to_string());
            let output = Command::new(program).arg(pid.to_string()).args(map).output();
            let output = output.map_err(|error| {
                io::Error::new(error.kind(), format!("{program}: {error} (apt-get install uidmap)"))
            })?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(io::Error::other(format!("{program} failed: {}", said.trim())));
            }
        }
        Ok(())
    }

    /// Returns it in a few words.
    pub fn described(&self) -> String {
        format!("user ids from {} and group ids from {}", self.first_user, self.first_group)
    }
}

/// Returns where the user's first range begins that is large enough.
fn first_of(table: &str, uid: Uid, name: Option<&str>) -> Option<u32> {
    let number = uid.to_string();
    table.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (first, count): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let is_ours = owner == number || Some(owner) == name;
        (is_ours && count >= COUNT).then_some(first)
    })
}

fn missing(kind: Kind, file: &str, uid: Uid, name: Option<&str>) -> String {
    let (what, option) = match kind {
        Kind::Users => ("user ids", "subuids"),
        Kind::Groups => ("group ids", "subgids"),
    };
    let user = name.map_or_else(|| uid.to_string(), str::to_owned);
    format!(
        "user `{user}` has no range of {COUNT} {what} in {file}: `usermod --add-{option} 1000000-1065535 {user}` gives it one, \
         if nobody else has these"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_found_by_name_or_number_and_is_large_enough() {
        let table =
            "# comment\nother:100000:65536\nalice:200000:1000\n 1007:300000:65536\nalice:400000:65535\n";
        let first = |uid, name| first_of(table, Uid::from_raw(uid), name);
        assert_eq!(first(5, Some("alice")), Some(400_000));
        assert_eq!(first(1007, None), Some(300_000));
        assert_eq!(first(5, Some("bob")), None);
        assert_eq!(first(5, None), None);
    }

    #[test]
    fn whoever_has_no_range_is_told_how_to_get_one() {
        let text = missing(Kind::Groups, "/etc/subgid", Uid::from_raw(7), Some("alice"));
        assert!(text.contains("`alice`") && text.contains("--add-subgids 1000000-1065535 alice"), "{text}");
    }
}
