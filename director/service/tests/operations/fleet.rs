//! A fleet of one, in memory: the log applies at once, and its clock is the test's.

use std::sync::{Arc, Mutex, MutexGuard};

use model::{Revision, UserName};
use service::{Caller, Service};
use state::command::{Actor, ENTRY_VERSION, Entry};
use state::log::{BoxFuture, CommandLog, Committed, LogError, Proposal, View};

use crate::nouns::World;

#[derive(Clone)]
pub struct Fleet(Arc<Mutex<World>>);

impl Fleet {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(World::new())))
    }

    pub fn service(&self) -> Service {
        Service::new(Arc::new(self.clone()))
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    fn apply(&self, proposal: Proposal) -> Committed {
        let mut world = self.world();
        world.now += 1;
        let entry = Entry {
            version: ENTRY_VERSION,
            request_id: proposal.request_id,
            actor: Actor { user: proposal.user, node: model::NodeId(1) },
            proposed_at: model::Timestamp(world.now),
            command: proposal.command,
        };
        world.log.push(entry.clone());
        let revision = world.revision();
        let outcome = state::apply(&mut world.kv, revision, &entry).outcome;
        Committed { revision, outcome }
    }
}

impl CommandLog for Fleet {
    fn propose(&self, proposal: Proposal) -> BoxFuture<'_, Result<Committed, LogError>> {
        Box::pin(async move { Ok(self.apply(proposal)) })
    }

    fn read_barrier(&self) -> BoxFuture<'_, Result<Revision, LogError>> {
        Box::pin(async move { Ok(self.revision()) })
    }

    fn view(&self) -> View {
        Arc::new(self.world().kv.clone())
    }

    fn revision(&self) -> Revision {
        self.world().revision()
    }

    fn changed(&self, _: Revision) -> BoxFuture<'_, Revision> {
        Box::pin(std::future::pending())
    }
}

/// Somebody with one scope.
pub fn caller(scope: &str) -> Caller {
    Caller { user: UserName::new("ann"), scopes: [scope.to_owned()].into(), ..Caller::default() }
}

pub fn admin() -> Caller {
    caller("bosh.admin")
}
