//! The replicated log as the executor and the service see it: commands in, outcomes out.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use executor::lease::{Held, Lease};
use model::{Epoch, NodeId, RequestId, Revision, Timestamp};
use raft::{Node, ProposeError, ReadError};
use state::State;
use state::command::{Actor, Command, ENTRY_VERSION, Entry, Outcome};
use state::log::{BoxFuture, CommandLog, Committed, LogError, Proposal, View};

use super::fsm::Look;
use crate::deadline;
use crate::metrics;

/// How long a request may wait for a leader.
pub const WAIT_FOR_LEADER: Duration = Duration::from_secs(20);

/// Every member has this one.
const OLDEST_LEVEL: u32 = 1;

/// The log over Raft.
#[derive(Clone)]
pub struct RaftLog {
    node: Node,
    id: NodeId,
    clock: fn() -> Timestamp,
}

impl RaftLog {
    /// Makes the log of a replica.
    pub fn new(node: Node, id: NodeId) -> Self {
        Self::with_clock(node, id, now)
    }

    /// Makes the log of a replica that stamps entries by this clock.
    pub fn with_clock(node: Node, id: NodeId, clock: fn() -> Timestamp) -> Self {
        Self { node, id, clock }
    }

    /// Returns what this replica's clock shows.
    pub fn clock(&self) -> Timestamp {
        (self.clock)()
    }

    /// Fails if a member is too old for a command: it would refuse what the others apply.
    fn check_level(&self, command: &Command) -> Result<(), LogError> {
        let needed = command.feature_level();
        if needed == OLDEST_LEVEL {
            return Ok(());
        }
        let view = self.view();
        match State::new(&*view).feature_level() {
            Some(level) if level < needed => Err(LogError::TooOld { level, needed }),
            _ => Ok(()),
        }
    }

    async fn send(&self, proposal: Proposal) -> Result<Committed, LogError> {
        self.check_level(&proposal.command)?;
        let entry = Entry {
            version: ENTRY_VERSION,
            // An id of our own where the caller gave none: carrying an entry to the leader may be repeated underneath.
            request_id: Some(
                proposal.request_id.unwrap_or_else(|| RequestId::new(uuid::Uuid::new_v4().to_string())),
            ),
            actor: Actor { user: proposal.user, node: self.id },
            proposed_at: (self.clock)(),
            command: proposal.command,
        };
        let (bytes, begun) = (entry.encode(), Instant::now());
        let proposed =
            self.node.propose(bytes, deadline::within(WAIT_FOR_LEADER)).await.map_err(log_error)?;
        let outcome = Outcome::decode(&proposed.answer)
            .map_err(|e| LogError::Other(format!("the state's answer can't be read: {e}")))?;
        if !matches!(outcome, Outcome::Refused(_)) {
            metrics::proposed(&entry.command, begun.elapsed());
        }
        Ok(Committed { revision: Revision(proposed.index), outcome })
    }
}

fn log_error(error: ProposeError) -> LogError {
    match error {
        ProposeError::Stopped => LogError::Stopping,
        ProposeError::NoRoom => LogError::NoRoom,
        ProposeError::TooLarge { bytes } => LogError::TooLarge { bytes, max: raft::MAX_ENTRY_BYTES },
        other => LogError::NoLeader(other.to_string()),
    }
}

/// Returns the time of this replica's clock: stamped once, by the proposer.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_millis() as i64)
}

impl CommandLog for RaftLog {
    fn propose(&self, proposal: Proposal) -> BoxFuture<'_, Result<Committed, LogError>> {
        Box::pin(self.send(proposal))
    }

    fn read_barrier(&self) -> BoxFuture<'_, Result<Revision, LogError>> {
        Box::pin(async {
            let begun = Instant::now();
            let index =
                self.node.read_barrier(deadline::within(WAIT_FOR_LEADER)).await.map_err(
                    |error| match error {
                        ReadError::Stopped => LogError::Stopping,
                        other => LogError::NoLeader(other.to_string()),
                    },
                )?;
            metrics::read_barrier(begun.elapsed());
            Ok(Revision(index))
        })
    }

    fn view(&self) -> View {
        Arc::new(Look(self.node.view()))
    }

    fn revision(&self) -> Revision {
        Revision(*self.node.watch_applied().borrow())
    }

    fn changed(&self, after: Revision) -> BoxFuture<'_, Revision> {
        let mut applied = self.node.watch_applied();
        Box::pin(async move {
            let reached = applied.wait_for(|index| *index > after.0).await.map(|index| *index);
            match reached {
                Ok(index) => Revision(index),
                // The replica is stopping: whoever waits is told to stop by other means.
                Err(_) => std::future::pending().await,
            }
        })
    }
}

impl Lease for RaftLog {
    fn held(&self) -> Option<Held> {
        let leadership = self.node.leadership()?;
        Some(Held { epoch: Epoch(leadership.term), until: leadership.until })
    }
}

#[cfg(test)]
mod tests {
    use state::records::Member;

    use super::*;
    use crate::test_support::replica::Replica;
    use crate::test_support::state::member;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nobody_waits_for_a_leader_longer_than_the_caller() {
        let (replica, folder) = (Replica::start().await, tempfile::tempdir().unwrap());
        // One that belongs to no fleet yet: nobody leads it.
        let (tasks, peers) = (owned_tasks::OwnedTasks::new(), replica.door.membership.peers.clone());
        let options = raft::Options::new(9, folder.path());
        let node =
            Node::start(options, Arc::new(crate::fleet::fsm::Fsm::default()), peers, &tasks).await.unwrap();
        let log = RaftLog::new(node.clone(), NodeId(9));
        let (begun, limit) = (tokio::time::Instant::now(), Duration::from_millis(300));
        let asked = deadline::scope(begun + limit, log.read_barrier()).await;
        assert!(matches!(asked, Err(LogError::NoLeader(_))), "{asked:?}");
        let put = Proposal::own(Command::UserTokenRemove { id: "t".into() });
        let told = deadline::scope(tokio::time::Instant::now() + limit, log.propose(put)).await;
        assert!(matches!(told, Err(LogError::NoLeader(_))), "{told:?}");
        assert!(begun.elapsed() < limit * 2, "{:?}", begun.elapsed());
        node.shutdown().await;
        assert!(tasks.stop(Duration::from_secs(10)).await);
        replica.stop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_an_older_member_does_not_know_is_not_proposed() {
        let replica = Replica::start().await;
        let old = Member { feature_level: 1, ..member(2) };
        replica.must(Command::MemberPut { member: old.clone() }).await;
        let before = replica.log.revision();
        let new = || Proposal::own(Command::UserTokenRemove { id: "t".into() });
        let refused = replica.log.propose(new()).await;
        assert_eq!(refused, Err(LogError::TooOld { level: 1, needed: 2 }));
        assert_eq!(replica.log.revision(), before, "nothing reached the log");
        replica.must(Command::MemberPut { member: Member { feature_level: 2, ..old } }).await;
        assert!(replica.log.propose(new()).await.is_ok());
        replica.stop().await;
    }
}
