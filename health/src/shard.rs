//! Which replica watches which deployment: rendezvous hashing, so that a replica that comes or goes moves only its own
//! share, and no table has to be stored.

use std::collections::BTreeSet;

use model::{DeploymentName, NodeId};
use sha2::{Digest as _, Sha256};

/// Returns the replica that watches a deployment's agents; none without watchers.
///
/// By deployment and not by agent, so that one replica sees all of a deployment and can tell a few failures from a
/// meltdown.
pub fn shard_owner(deployment: &DeploymentName, watchers: &BTreeSet<NodeId>) -> Option<NodeId> {
    watchers.iter().copied().max_by_key(|node| (weight(deployment, *node), *node))
}

fn weight(deployment: &DeploymentName, node: NodeId) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(node.0.to_be_bytes());
    hash.update(deployment.as_str().as_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    fn names() -> impl Iterator<Item = DeploymentName> {
        (0..1000).map(|n| DeploymentName::new(format!("deployment-{n}")))
    }

    #[test]
    fn a_lost_watcher_moves_only_its_own_share() {
        let (before, after) = (nodes(&[1, 2, 3]), nodes(&[1, 3]));
        for name in names() {
            let owner = shard_owner(&name, &before).unwrap();
            if owner != NodeId(2) {
                assert_eq!(shard_owner(&name, &after), Some(owner));
            }
        }
    }

    #[test]
    fn shares_are_about_equal() {
        let watchers = nodes(&[1, 2, 3]);
        for node in &watchers {
            let share = names().filter(|n| shard_owner(n, &watchers) == Some(*node)).count();
            assert!((250..420).contains(&share), "replica {node} watches {share} of 1000");
        }
    }

    #[test]
    fn nobody_watches_without_watchers() {
        assert_eq!(shard_owner(&"d".into(), &nodes(&[])), None);
    }
}
