//! Somebody for each kind of scope, and who of them a line of the table of rights lets in.

use std::collections::BTreeSet;

use state::command::Command;
use state::records::User;

use super::replica::{PASSWORD, Replica};
use crate::auth::hash_password;

/// Names and scopes. Team `red` owns what the tests make, team `blue` nothing.
pub const PEOPLE: &[(&str, &[&str])] = &[
    ("nobody", &[]),
    ("elsewhere", &["bosh.other-uuid.admin", "bosh.other-uuid.read", "openid"]),
    ("reader", &["bosh.read"]),
    ("bound-reader", &["bosh.d-uuid.read"]),
    ("blue-reader", &["bosh.teams.blue.read"]),
    ("blue-admin", &["bosh.teams.blue.admin"]),
    ("releases", &["bosh.releases.upload"]),
    ("stemcells", &["bosh.stemcells.upload"]),
    ("disk-lister", &["bosh.dynamic-disks.list"]),
    ("disk-creator", &["bosh.dynamic-disks.create"]),
    ("disk-attacher", &["bosh.dynamic-disks.attach"]),
    ("disk-provider", &["bosh.dynamic-disks.create", "bosh.dynamic-disks.attach"]),
    ("disk-detacher", &["bosh.dynamic-disks.detach"]),
    ("disk-deleter", &["bosh.dynamic-disks.delete"]),
    ("red-reader", &["bosh.teams.red.read"]),
    ("red-admin", &["bosh.teams.red.admin"]),
    ("bound-admin", &["bosh.d-uuid.admin"]),
    ("admin", &["bosh.admin"]),
];

impl Replica {
    /// Gives the fleet all of them as users.
    pub async fn put_people(&self) {
        let password_hash = hash_password(PASSWORD);
        for (name, scopes) in PEOPLE {
            let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
            let user = User { name: (*name).into(), password_hash: password_hash.clone(), scopes };
            self.must(Command::UserPut { user }).await;
        }
    }
}

/// Returns who is let in by words: the director's admins always, and besides them its readers (`R`), admins and readers of
/// any team (`TA`, `TR`), those of the team that owns the thing (`DA`, `DR`), who may upload (`UR`, `US`), who may list, create,
/// attach, provide, detach and delete dynamic disks (`XL`, `XC`, `XA`, `XP`, `XT`, `XD`), `anybody`.
pub fn let_in(words: &str) -> BTreeSet<&'static str> {
    let mut names = BTreeSet::from(["admin", "bound-admin"]);
    for word in words.split_whitespace() {
        names.extend::<&[&str]>(match word {
            "A" => &[],
            "R" => &["reader", "bound-reader"],
            "TA" => &["red-admin", "blue-admin"],
            "TR" => &["red-reader", "blue-reader"],
            "DA" => &["red-admin"],
            "DR" => &["red-reader"],
            "UR" => &["releases"],
            "US" => &["stemcells"],
            "XL" => &["disk-lister"],
            "XC" => &["disk-creator", "disk-provider"],
            "XA" => &["disk-attacher", "disk-provider"],
            "XP" => &["disk-provider"],
            "XT" => &["disk-detacher"],
            "XD" => &["disk-deleter"],
            "anybody" => return PEOPLE.iter().map(|(name, _)| *name).collect(),
            other => panic!("{other} stands for nobody"),
        });
    }
    names
}

/// Returns everybody, who is not let in first: they must not meet what the others leave.
pub fn refused_first(words: &str) -> Vec<(&'static str, bool)> {
    let let_in = let_in(words);
    let (refused, others): (Vec<_>, Vec<_>) =
        PEOPLE.iter().map(|(name, _)| (*name, let_in.contains(name))).partition(|(_, is_in)| !is_in);
    [refused, others].concat()
}
