//! How deployments are, by what the watchers agreed on.

use std::collections::{BTreeMap, BTreeSet};

use model::instance::Instance;
use model::*;

use super::State;
use crate::kv::Direction;
use crate::records::*;
use crate::tables::*;

/// Which deployments to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All. Reads every instance.
    All,
    /// Those with a failure or a suspicion, and those in meltdown. The instances of the others are not read.
    Ailing,
}

/// A deployment's instances that should have a VM, and what is the matter with some of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentHealth {
    /// The deployment.
    pub deployment: DeploymentName,
    /// Whether a task works on it: VMs come and go then.
    pub in_work: bool,
    /// Its instances that should have a VM and are not ignored. The others are in none of these sets.
    pub wanted: BTreeSet<InstanceId>,
    /// Those whose agent is dead.
    pub dead: BTreeSet<InstanceId>,
    /// Those whose agent is silent and being asked.
    pub suspect: BTreeSet<InstanceId>,
    /// Those that have no VM.
    pub missing: BTreeSet<InstanceId>,
    /// Whether so much has failed that nothing is resurrected.
    pub meltdown: Option<Meltdown>,
}

impl DeploymentHealth {
    fn ails(&self) -> bool {
        [&self.dead, &self.suspect, &self.missing].into_iter().any(|set| !set.is_empty())
    }
}

type Agents = BTreeMap<InstanceId, Vec<AgentRecord>>;

impl<'a> State<'a> {
    /// Returns the deployments' health, by name, from one on, as they are read.
    pub fn health_from(
        &self,
        which: Which,
        from: Option<&DeploymentName>,
    ) -> impl Iterator<Item = DeploymentHealth> + use<'a> {
        let (state, in_work) = (*self, self.deployments_in_work());
        let mut agents = BTreeMap::<DeploymentName, Agents>::new();
        for agent in self.agents_from(None) {
            let of = agents.entry(agent.deployment.clone()).or_default();
            of.entry(agent.instance.clone()).or_default().push(agent);
        }
        let start = from.cloned().unwrap_or_default();
        DEPLOYMENTS.rows_from(self.kv, &start).filter_map(move |(name, _)| {
            let agents = agents.remove(&name).unwrap_or_default();
            let mut health = DeploymentHealth {
                in_work: in_work.contains(&name),
                wanted: BTreeSet::new(),
                dead: BTreeSet::new(),
                suspect: BTreeSet::new(),
                missing: BTreeSet::new(),
                meltdown: MELTDOWNS.get(state.kv, &name),
                deployment: name,
            };
            let is_asked_for = which == Which::All || health.meltdown.is_some();
            if !is_asked_for && !state.may_ail(&health.deployment, &agents) {
                return None;
            }
            state.examine(&mut health, &agents);
            Some(health).filter(|health| is_asked_for || health.ails())
        })
    }

    /// Returns the deployments' health, by name.
    pub fn health(&self, which: Which) -> Vec<DeploymentHealth> {
        self.health_from(which, None).collect()
    }

    /// Returns whether anything may be the matter with a deployment's instances, without reading those with a good agent.
    fn may_ail(&self, deployment: &DeploymentName, agents: &Agents) -> bool {
        let mut ids = INSTANCES_OF.rows_of(self.kv, deployment, Direction::Forward);
        ids.any(|((_, id), ())| match agents.get(&id) {
            Some(agents) => agents.iter().any(|agent| is_ill(agent) || !agent.bound),
            None => self.instance(&id).is_some_and(|instance| is_wanted(&instance)),
        })
    }

    fn examine(&self, health: &mut DeploymentHealth, agents: &Agents) {
        for instance in self.instances(&health.deployment).into_iter().filter(is_wanted) {
            let id = instance.spec.id;
            let active = match agents.get(&id).map(Vec::as_slice) {
                None | Some([]) => None,
                // The usual case costs no look at the VM.
                Some([only]) if !is_ill(only) => Some(only),
                Some(agents) => {
                    let vm = self.active_vm(&id);
                    vm.and_then(|vm| agents.iter().find(|a| a.agent == vm.agent))
                }
            };
            // A VM that a broken-off task did not get to introduce is none, however well its agent is.
            let is_its_own = |agent: &&AgentRecord| agent.bound || health.in_work || is_ill(agent);
            let active = active.filter(is_its_own);
            let set = match active.map(|agent| agent.health) {
                None => Some(&mut health.missing),
                Some(AgentHealth::Dead) => Some(&mut health.dead),
                Some(AgentHealth::Suspect) => Some(&mut health.suspect),
                Some(AgentHealth::New | AgentHealth::Alive) => None,
            };
            if let Some(set) = set {
                set.insert(id.clone());
            }
            health.wanted.insert(id);
        }
    }
}

fn is_ill(agent: &AgentRecord) -> bool {
    matches!(agent.health, AgentHealth::Suspect | AgentHealth::Dead)
}

fn is_wanted(instance: &Instance) -> bool {
    instance.expects_vm() && !instance.ignore
}
