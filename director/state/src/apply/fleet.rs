//! The fleet: cluster, leader, members, join tokens, users, settings.

use model::*;

use super::event::{Audit, audit};
use super::tx::{Tx, invalid, not_found};
use crate::command::{Outcome, Refusal};
use crate::records::*;
use crate::rows::Leader;
use crate::tables::*;

/// The highest member number ever seen; the next member gets the one after it.
const MEMBERS_COUNTER: &str = "members";

/// Largest member number accepted, so that there is always a next one.
const NODE_MAX: u64 = u32::MAX as u64;

/// Used and expired tokens are forgotten after this.
const TOKEN_KEPT_MS: i64 = 24 * 60 * 60 * 1000;

/// Tokens that a user may have at once.
const USER_TOKENS_MAX: usize = 100;

/// `ClusterInit`; `names` are the cluster's id, the director's name and its UUID.
pub(super) fn init(tx: &mut Tx<'_>, names: [&String; 3], secrets: &FleetSecrets) -> Result<Outcome, Refusal> {
    if tx.has(&CLUSTER, &()) {
        return Err(Refusal::AlreadyInitialised);
    }
    let [cluster_id, director_name, director_uuid] = names.map(String::clone);
    let cluster = Cluster {
        cluster_id,
        director_name,
        director_uuid,
        secrets: secrets.clone(),
        epoch: Epoch(0),
        leader: NodeId(0),
        resurrection_paused: false,
        managed_networks: false,
    };
    tx.put(&CLUSTER, &(), &cluster);
    Ok(Outcome::Done)
}

/// `LeaderBegin`. The same leader's repeat is fine.
pub(super) fn leader_begin(tx: &mut Tx<'_>, node: NodeId, epoch: Epoch) -> Result<Outcome, Refusal> {
    let current = tx.get(&LEADER, &()).unwrap_or_default();
    if epoch > current.epoch {
        tx.put(&LEADER, &(), &Leader { epoch, node });
        return Ok(Outcome::Done);
    }
    match (Leader { epoch, node }) == current {
        true => Ok(Outcome::Done),
        false => Err(Refusal::StaleEpoch { given: epoch, current: current.epoch }),
    }
}

/// `MemberPut`.
pub(super) fn member_put(tx: &mut Tx<'_>, member: &Member) -> Result<Outcome, Refusal> {
    let node = member.node;
    if node.0 == 0 || node.0 > NODE_MAX {
        return Err(invalid(format!("member {node}"), "its number is out of range"));
    }
    if tx.has(&MEMBERS_REMOVED, &node) {
        return Err(not_found("member", node.to_string()));
    }
    let highest = tx.get(&COUNTERS, &MEMBERS_COUNTER.to_owned()).unwrap_or_default();
    if node.0 > highest {
        tx.put(&COUNTERS, &MEMBERS_COUNTER.to_owned(), &node.0);
    }
    if !tx.has(&MEMBERS, &node) {
        audit_plain(tx, "create", "member", member.name.clone());
    }
    tx.put(&MEMBERS, &node, member);
    Ok(Outcome::Done)
}

/// `MemberRemove`. The number is never given again. The last one stays: two that are removed at the same time through one
/// another would leave nobody.
pub(super) fn member_remove(tx: &mut Tx<'_>, node: NodeId) -> Result<Outcome, Refusal> {
    let member = tx.need(&MEMBERS, &node, "member")?;
    if tx.rows(&MEMBERS).count() == 1 {
        return Err(invalid(format!("removing member {node}"), "it is the last one"));
    }
    tx.delete(&MEMBERS, &node);
    tx.put(&MEMBERS_REMOVED, &node, &());
    audit_plain(tx, "delete", "member", member.name);
    Ok(Outcome::Done)
}

/// `TokenPut`. Old tokens are forgotten here, where new ones come.
pub(super) fn token_put(tx: &mut Tx<'_>, token: &JoinToken) -> Result<Outcome, Refusal> {
    let forgotten_before = tx.at.0.saturating_sub(TOKEN_KEPT_MS);
    let old: Vec<String> = tx
        .rows(&TOKENS)
        .filter(|(_, token)| token.expires_at.0 < forgotten_before)
        .map(|(hash, _)| hash)
        .collect();
    for hash in old {
        tx.delete(&TOKENS, &hash);
    }
    if tx.has(&TOKENS, &token.hash) {
        return Err(Refusal::Exists { what: "join token".into(), name: token.hash.clone() });
    }
    // A token begins unused, whatever the entry says.
    tx.put(&TOKENS, &token.hash, &JoinToken { used_by: None, ..token.clone() });
    // Enough of the hash to tell tokens apart.
    audit_plain(tx, "create", "join_token", token.hash.chars().take(8).collect());
    Ok(Outcome::Done)
}

/// `TokenUse`.
pub(super) fn token_use(tx: &mut Tx<'_>, hash: &str, key_digest: &str) -> Result<Outcome, Refusal> {
    let token = tx.get(&TOKENS, &hash.to_owned()).ok_or(Refusal::BadToken)?;
    match &token.used_by {
        // The same joiner asks again: its first answer was lost on the way.
        Some((digest, node)) if digest == key_digest => Ok(Outcome::MemberNumber(*node)),
        Some(_) => Err(Refusal::BadToken),
        None if tx.at > token.expires_at => Err(Refusal::BadToken),
        None => {
            let node = NodeId(tx.next_number(MEMBERS_COUNTER));
            let used_by = Some((key_digest.to_owned(), node));
            tx.put(&TOKENS, &hash.to_owned(), &JoinToken { used_by, ..token });
            Ok(Outcome::MemberNumber(node))
        }
    }
}

/// `UserPut`.
pub(super) fn user_put(tx: &mut Tx<'_>, user: &User) -> Result<Outcome, Refusal> {
    let action = if tx.has(&USERS, &user.name) { "update" } else { "create" };
    tx.put(&USERS, &user.name, user);
    audit_plain(tx, action, "user", user.name.to_string());
    Ok(Outcome::Done)
}

/// `UserRemove`.
pub(super) fn user_remove(tx: &mut Tx<'_>, name: &UserName) -> Result<Outcome, Refusal> {
    tx.need(&USERS, name, "user")?;
    tx.delete(&USERS, name);
    for token in tokens_of(tx, name) {
        tx.delete(&USER_TOKENS, &token.id);
    }
    audit_plain(tx, "delete", "user", name.to_string());
    Ok(Outcome::Done)
}

/// `UserTokenPut`. Expired ones are forgotten here, where new ones come.
pub(super) fn user_token_put(tx: &mut Tx<'_>, token: &UserToken) -> Result<Outcome, Refusal> {
    tx.need(&USERS, &token.user, "user")?;
    if token.id.is_empty() || token.hash.is_empty() {
        return Err(invalid("a token", "it has no id or no hash"));
    }
    if tx.has(&USER_TOKENS, &token.id) {
        return Err(Refusal::Exists { what: "user token".into(), name: token.id.clone() });
    }
    let (old, kept): (Vec<UserToken>, Vec<UserToken>) =
        tokens_of(tx, &token.user).into_iter().partition(|t| t.expires_at < tx.at);
    for expired in old {
        tx.delete(&USER_TOKENS, &expired.id);
    }
    if kept.len() >= USER_TOKENS_MAX {
        let reason = format!("user {} has {USER_TOKENS_MAX}: revoke one", token.user);
        return Err(invalid("another token", reason));
    }
    tx.put(&USER_TOKENS, &token.id, &UserToken { created_at: tx.at, ..token.clone() });
    audit_plain(tx, "create", "user_token", format!("{}/{}", token.user, token.id));
    Ok(Outcome::Done)
}

/// `UserTokenRemove`.
pub(super) fn user_token_remove(tx: &mut Tx<'_>, id: &String) -> Result<Outcome, Refusal> {
    let token = tx.need(&USER_TOKENS, id, "user token")?;
    tx.delete(&USER_TOKENS, id);
    audit_plain(tx, "delete", "user_token", format!("{}/{id}", token.user));
    Ok(Outcome::Done)
}

fn tokens_of(tx: &Tx<'_>, user: &UserName) -> Vec<UserToken> {
    tx.rows(&USER_TOKENS).map(|(_, token)| token).filter(|token| token.user == *user).collect()
}

/// `SettingPut`.
pub(super) fn setting_put(tx: &mut Tx<'_>, setting: Setting) -> Result<Outcome, Refusal> {
    let mut cluster = tx.need(&CLUSTER, &(), "cluster")?;
    match setting {
        Setting::ResurrectionPaused(paused) => {
            cluster.resurrection_paused = paused;
            let action = if paused { "pause" } else { "resume" };
            audit_plain(tx, action, "resurrection", "all".into());
        }
        Setting::ManagedNetworks(on) => {
            if !on {
                check_no_network_is_used(tx)?;
            }
            cluster.managed_networks = on;
            let action = if on { "enable" } else { "disable" };
            audit_plain(tx, action, "managed_networks", "all".into());
        }
    }
    tx.put(&CLUSTER, &(), &cluster);
    Ok(Outcome::Done)
}

/// Without managed networks, deployments would take theirs for networks of people, and leave them to be deleted.
fn check_no_network_is_used(tx: &Tx<'_>) -> Result<(), Refusal> {
    let mut users =
        tx.rows(&NETWORKS).filter_map(|(name, network)| Some((name, network.deployments.first()?.clone())));
    match users.next() {
        Some((name, deployment)) => {
            let by = format!("deployment {deployment}");
            Err(Refusal::InUse { what: "managed network".into(), name: name.to_string(), by })
        }
        None => Ok(()),
    }
}

fn audit_plain(tx: &mut Tx<'_>, action: &str, object_type: &str, name: String) {
    audit(tx, Audit { action, object_type, object_name: Some(name), ..Audit::default() });
}
