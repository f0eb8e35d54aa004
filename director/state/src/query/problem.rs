//! Problems, as they stand now.

use model::problem::{Fault, Problem, Standing};
use model::{DeploymentName, ProblemId};

use super::State;
use crate::kv::Direction;
use crate::tables::*;

impl<'a> State<'a> {
    /// Returns the open problems of a deployment, in the order in which they were found.
    pub fn problems(&self, deployment: &DeploymentName) -> Vec<Standing> {
        let rows = PROBLEMS.rows_of(self.kv, deployment, Direction::Forward);
        rows.map(|(_, problem)| self.standing(problem)).collect()
    }

    /// Returns an open problem of a deployment.
    pub fn problem(&self, deployment: &DeploymentName, id: ProblemId) -> Option<Standing> {
        PROBLEMS.get(self.kv, &(deployment.clone(), id)).map(|problem| self.standing(problem))
    }

    fn standing(&self, problem: Problem) -> Standing {
        Standing { outdated: self.outdated(&problem), problem }
    }

    /// Says why a problem is none any more: what it was found with has gone since, or another has taken its place.
    fn outdated(&self, problem: &Problem) -> Option<String> {
        let instance = &problem.finding.instance;
        if !INSTANCES.has(self.kv, instance) {
            return Some(format!("Instance '{}/{instance}' doesn't exist", problem.finding.group));
        }
        let current = self.active_vm(instance).filter(|vm| vm.bound).map(|vm| vm.agent);
        let disk_of = |id| DISKS.get(self.kv, id).filter(|disk| disk.instance == *instance);
        match &problem.finding.fault {
            Fault::MissingVm { agent, .. } if current == *agent => None,
            Fault::UnresponsiveAgent { agent, .. } if current.as_ref() == Some(agent) => None,
            Fault::MissingVm { .. } | Fault::UnresponsiveAgent { .. } => {
                Some(format!("Instance '{}/{instance}' has another VM by now", problem.finding.group))
            }
            Fault::MissingDisk { disk, cid, .. }
            | Fault::InactiveDisk { disk, cid, .. }
            | Fault::MountInfoMismatch { disk, cid, .. } => match disk_of(disk) {
                None => Some(format!("Disk '{cid}' is no disk of the instance any more")),
                Some(row) if row.active && matches!(problem.finding.fault, Fault::InactiveDisk { .. }) => {
                    Some(format!("Disk '{cid}' is no longer inactive"))
                }
                Some(_) => None,
            },
        }
    }
}
