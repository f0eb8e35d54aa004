//! Who is asking, and what that allows: BOSH's scopes. Deny is the default: an unknown scope gives nothing.
//!
//! Besides the director's own scopes there are those of teams (`bosh.teams.T.admin`, `bosh.teams.T.read`). What a right on
//! its own asks for is in the scopes alone, so a team that owns nothing passes, too; who owns a thing is asked with
//! [`Caller::owns`], and the operation that knows the thing does so.

use std::collections::BTreeSet;

use model::UserName;

use crate::error::ServiceError;

/// What an operation demands. An admin of the director has all of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Looking.
    Read,
    /// Changing anything, and seeing secrets.
    Admin,
    /// Looking at what deploys need: also for the admins of any team.
    ReadOrTeamAdmin,
    /// Looking at what concerns everybody: also for admins and readers of any team.
    ReadOrTeam,
    /// Making what a team owns: for the admins of any team.
    TeamAdmin,
    /// Bringing releases.
    UploadReleases,
    /// Bringing stemcells.
    UploadStemcells,
    /// Bringing the archive of either.
    Upload,
    /// Looking at dynamic disks.
    ListDynamicDisks,
    /// Making them.
    CreateDynamicDisks,
    /// Attaching them.
    AttachDynamicDisks,
    /// Making them if need be, and attaching them.
    ProvideDynamicDisks,
    /// Detaching them.
    DetachDynamicDisks,
    /// Deleting them.
    DeleteDynamicDisks,
    /// Anything at all.
    Any,
}

/// What somebody wants of a thing that teams own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Looking: for readers of the director, and for admins and readers of the teams.
    Read,
    /// Changing it, and seeing its secrets: for admins of the teams.
    Admin,
}

/// Who vouches for a caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// The fleet: it is one of its users.
    #[default]
    Fleet,
    /// The UAA. A user of the fleet may have the same name, and is somebody else.
    Uaa,
}

/// Somebody who has proved who they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Their name.
    pub user: UserName,
    /// Their scopes (`bosh.admin`, `bosh.read` …).
    pub scopes: BTreeSet<String>,
    /// The UUID of this director, to which scopes may be bound (`bosh.UUID.admin`); empty if it is not known.
    pub director: String,
    /// Who says so.
    pub origin: Origin,
}

/// One scope for each thing that is done with dynamic disks.
const DYNAMIC_DISKS: [(Right, &str); 5] = [
    (Right::ListDynamicDisks, "bosh.dynamic-disks.list"),
    (Right::CreateDynamicDisks, "bosh.dynamic-disks.create"),
    (Right::AttachDynamicDisks, "bosh.dynamic-disks.attach"),
    (Right::DetachDynamicDisks, "bosh.dynamic-disks.detach"),
    (Right::DeleteDynamicDisks, "bosh.dynamic-disks.delete"),
];

fn of_dynamic_disks(right: Right) -> Option<&'static str> {
    DYNAMIC_DISKS.iter().find(|(own, _)| *own == right).map(|(_, scope)| *scope)
}

/// The operation of looking at a task, which is refused in words of its own.
pub const ACCESS_TASK: &str = "access this task";

impl Caller {
    /// Fails unless the caller has a right.
    pub fn needs(&self, right: Right, operation: &'static str) -> Result<(), ServiceError> {
        match self.has(right) {
            true => Ok(()),
            false => Err(self.refused(operation, self.wanted(right))),
        }
    }

    /// Fails unless the caller has access to something that these teams own.
    pub fn owns(
        &self,
        teams: &[String],
        access: Access,
        operation: &'static str,
    ) -> Result<(), ServiceError> {
        let of_team =
            |team: &String| self.is_in(team, "admin") || (access == Access::Read && self.is_in(team, "read"));
        let director = if access == Access::Read { Right::Read } else { Right::Admin };
        if self.has(director) || teams.iter().any(of_team) {
            return Ok(());
        }
        let mut wanted = self.wanted(director);
        wanted.extend(teams.iter().map(|team| format!("bosh.teams.{team}.admin")));
        if access == Access::Read {
            wanted.extend(teams.iter().map(|team| format!("bosh.teams.{team}.read")));
        }
        Err(self.refused(operation, wanted))
    }

    /// Returns whether the caller has a right.
    pub fn has(&self, right: Right) -> bool {
        let is_reader = || self.has_of_director("read");
        let is_team_admin = || self.teams("admin").next().is_some();
        self.has_of_director("admin")
            || match right {
                Right::Admin => false,
                Right::Read => is_reader(),
                Right::ReadOrTeamAdmin => is_reader() || is_team_admin(),
                Right::ReadOrTeam => is_reader() || is_team_admin() || self.teams("read").next().is_some(),
                Right::TeamAdmin => is_team_admin(),
                Right::UploadReleases => self.scopes.contains("bosh.releases.upload"),
                Right::UploadStemcells => self.scopes.contains("bosh.stemcells.upload"),
                Right::Upload => self.has(Right::UploadReleases) || self.has(Right::UploadStemcells),
                Right::ProvideDynamicDisks => {
                    self.has(Right::CreateDynamicDisks) && self.has(Right::AttachDynamicDisks)
                }
                Right::ListDynamicDisks
                | Right::CreateDynamicDisks
                | Right::AttachDynamicDisks
                | Right::DetachDynamicDisks
                | Right::DeleteDynamicDisks => {
                    of_dynamic_disks(right).is_some_and(|own| self.scopes.contains(own))
                }
                Right::Any => {
                    let of_disks = |right: &Right| self.has(*right);
                    self.has(Right::ReadOrTeam)
                        || self.has(Right::Upload)
                        || DYNAMIC_DISKS.iter().any(|(right, _)| of_disks(right))
                }
            }
    }

    /// Returns the teams that the caller is an admin of, in the order of the alphabet.
    pub fn admin_teams(&self) -> Vec<String> {
        self.teams("admin").map(str::to_owned).collect()
    }

    fn has_of_director(&self, role: &str) -> bool {
        let bound = || self.scopes.contains(&format!("bosh.{}.{role}", self.director));
        self.scopes.contains(&format!("bosh.{role}")) || (!self.director.is_empty() && bound())
    }

    fn is_in(&self, team: &str, role: &str) -> bool {
        self.teams(role).any(|own| own == team)
    }

    /// Returns the teams in which the caller has a role. A team's name has no dots.
    fn teams<'a>(&'a self, role: &'a str) -> impl Iterator<Item = &'a str> {
        self.scopes.iter().filter_map(move |scope| {
            let team = scope.strip_prefix("bosh.teams.")?.strip_suffix(role)?.strip_suffix('.')?;
            (!team.is_empty() && !team.contains('.')).then_some(team)
        })
    }

    /// Returns the scopes that give a right.
    fn wanted(&self, right: Right) -> Vec<String> {
        let mut wanted = vec!["bosh.admin".to_owned()];
        let bound =
            |role: &str| (!self.director.is_empty()).then(|| format!("bosh.{}.{role}", self.director));
        wanted.extend(bound("admin"));
        let reads = matches!(right, Right::Read | Right::ReadOrTeamAdmin | Right::ReadOrTeam | Right::Any);
        if reads {
            wanted.push("bosh.read".to_owned());
            wanted.extend(bound("read"));
        }
        let others: &[&str] = match right {
            Right::Admin | Right::Read => &[],
            Right::ReadOrTeamAdmin | Right::TeamAdmin => &["bosh.teams.*.admin"],
            Right::ReadOrTeam | Right::Any => &["bosh.teams.*.admin", "bosh.teams.*.read"],
            Right::UploadReleases => &["bosh.releases.upload"],
            Right::UploadStemcells => &["bosh.stemcells.upload"],
            Right::Upload => &["bosh.releases.upload", "bosh.stemcells.upload"],
            Right::ProvideDynamicDisks => &["(bosh.dynamic-disks.create AND bosh.dynamic-disks.attach)"],
            Right::ListDynamicDisks
            | Right::CreateDynamicDisks
            | Right::AttachDynamicDisks
            | Right::DetachDynamicDisks
            | Right::DeleteDynamicDisks => &[],
        };
        wanted.extend(others.iter().chain(of_dynamic_disks(right).as_ref()).map(|scope| (*scope).to_owned()));
        wanted
    }

    fn refused(&self, operation: &'static str, scopes: Vec<String>) -> ServiceError {
        ServiceError::Forbidden { user: self.user.clone(), operation, scopes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(scopes: &[&str]) -> Caller {
        let scopes = scopes.iter().map(|s| (*s).to_owned()).collect();
        Caller { user: "u".into(), scopes, director: "d-1".into(), origin: Origin::Fleet }
    }

    const ALL: [Right; 15] = [
        Right::Read,
        Right::Admin,
        Right::ReadOrTeamAdmin,
        Right::ReadOrTeam,
        Right::TeamAdmin,
        Right::UploadReleases,
        Right::UploadStemcells,
        Right::Upload,
        Right::ListDynamicDisks,
        Right::CreateDynamicDisks,
        Right::AttachDynamicDisks,
        Right::ProvideDynamicDisks,
        Right::DetachDynamicDisks,
        Right::DeleteDynamicDisks,
        Right::Any,
    ];

    #[test]
    fn rights_come_from_scopes_alone() {
        use Right::*;
        for (scope, rights) in [
            ("bosh.admin", &ALL[..]),
            ("bosh.d-1.admin", &ALL[..]),
            ("bosh.read", &[Read, ReadOrTeamAdmin, ReadOrTeam, Any]),
            ("bosh.d-1.read", &[Read, ReadOrTeamAdmin, ReadOrTeam, Any]),
            ("bosh.teams.t.admin", &[ReadOrTeamAdmin, ReadOrTeam, TeamAdmin, Any]),
            ("bosh.teams.t.read", &[ReadOrTeam, Any]),
            ("bosh.releases.upload", &[UploadReleases, Upload, Any]),
            ("bosh.stemcells.upload", &[UploadStemcells, Upload, Any]),
            ("bosh.dynamic-disks.list", &[ListDynamicDisks, Any]),
            ("bosh.dynamic-disks.create", &[CreateDynamicDisks, Any]),
            ("bosh.dynamic-disks.attach", &[AttachDynamicDisks, Any]),
            ("bosh.dynamic-disks.detach", &[DetachDynamicDisks, Any]),
            ("bosh.dynamic-disks.delete", &[DeleteDynamicDisks, Any]),
        ] {
            let has: Vec<Right> = ALL.into_iter().filter(|right| caller(&[scope]).has(*right)).collect();
            let wanted: Vec<Right> = ALL.into_iter().filter(|right| rights.contains(right)).collect();
            assert_eq!(has, wanted, "{scope}");
        }
    }

    #[test]
    fn to_provide_a_disk_is_to_make_and_to_attach_it() {
        let both = caller(&["bosh.dynamic-disks.create", "bosh.dynamic-disks.attach"]);
        assert!(both.has(Right::ProvideDynamicDisks) && !both.has(Right::DetachDynamicDisks));
        let Err(ServiceError::Forbidden { scopes, .. }) = caller(&[]).needs(Right::ProvideDynamicDisks, "x")
        else {
            panic!("it is refused")
        };
        assert_eq!(
            scopes,
            ["bosh.admin", "bosh.d-1.admin", "(bosh.dynamic-disks.create AND bosh.dynamic-disks.attach)"]
        );
        let Err(ServiceError::Forbidden { scopes, .. }) = caller(&[]).needs(Right::DeleteDynamicDisks, "x")
        else {
            panic!("it is refused")
        };
        assert_eq!(scopes.last().unwrap(), "bosh.dynamic-disks.delete");
    }

    #[test]
    fn what_only_looks_like_a_scope_gives_nothing() {
        for scope in [
            "bosh.administrator",
            "bosh.d-2.admin",
            "bosh..admin",
            "BOSH.ADMIN",
            "bosh.teams.admin",
            "bosh.teams..admin",
            "bosh.teams.a.b.admin",
            "bosh.teams.t.administrator",
            "bosh.teams.tadmin",
            "bosh.dynamic-disks.provide",
            "bosh.dynamic-disks",
            "x.bosh.teams.t.admin",
            "openid",
            "",
        ] {
            assert!(!caller(&[scope]).has(Right::Any), "{scope}");
        }
        assert!(!caller(&[]).has(Right::Any));
        let nowhere = Caller { director: String::new(), ..caller(&["bosh..admin", "bosh..read"]) };
        assert!(!nowhere.has(Right::Any), "a director without a number has no scopes bound to it");
    }

    #[test]
    fn a_thing_is_for_its_teams_and_for_the_director_s_people() {
        let teams = ["t".to_owned(), "u".to_owned()];
        for (scope, reads, changes) in [
            ("bosh.admin", true, true),
            ("bosh.d-1.admin", true, true),
            ("bosh.read", true, false),
            ("bosh.teams.u.admin", true, true),
            ("bosh.teams.u.read", true, false),
            ("bosh.teams.v.admin", false, false),
            ("bosh.releases.upload", false, false),
        ] {
            let may = |access| caller(&[scope]).owns(&teams, access, "x").is_ok();
            assert_eq!((may(Access::Read), may(Access::Admin)), (reads, changes), "{scope}");
        }
        assert!(caller(&["bosh.teams.t.admin"]).owns(&[], Access::Read, "x").is_err(), "nobody's");
        assert_eq!(caller(&["bosh.teams.b.admin", "bosh.teams.a.admin"]).admin_teams(), ["a", "b"]);
    }

    #[test]
    fn who_is_refused_is_told_which_scopes_would_do() {
        let Err(ServiceError::Forbidden { scopes, .. }) = caller(&[]).needs(Right::UploadReleases, "x")
        else {
            panic!("it is refused")
        };
        assert_eq!(scopes, ["bosh.admin", "bosh.d-1.admin", "bosh.releases.upload"]);
        let Err(ServiceError::Forbidden { scopes, .. }) = caller(&[]).owns(&["t".into()], Access::Read, "x")
        else {
            panic!("it is refused")
        };
        let read = ["bosh.admin", "bosh.d-1.admin", "bosh.read", "bosh.d-1.read"];
        assert_eq!(scopes, [&read[..], &["bosh.teams.t.admin", "bosh.teams.t.read"]].concat());
    }
}
