//! An address, and the id of an agent, belong to one instance.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::{AgentId, InstanceId};

use super::{Event, Invariant};

#[derive(Default)]
pub struct OneHolder;

impl Invariant for OneHolder {
    fn name(&self) -> &'static str {
        "one holder"
    }

    fn see(&mut self, event: &Event<'_>) -> Result<(), String> {
        let Event::State { state, index } = event else { return Ok(()) };
        let (mut addresses, mut agents) =
            (BTreeMap::<IpAddr, InstanceId>::new(), BTreeMap::<AgentId, InstanceId>::new());
        for deployment in state.deployments() {
            for instance in state.instances(&deployment.name) {
                let id = &instance.spec.id;
                for address in state.instance_addresses(id) {
                    if let Some(other) = addresses.insert(address.ip, id.clone()).filter(|other| other != id)
                    {
                        return Err(format!("at {index} {} is of {other} and of {id}", address.ip));
                    }
                }
                for vm in state.vms(id) {
                    if let Some(other) =
                        agents.insert(vm.agent.clone(), id.clone()).filter(|other| other != id)
                    {
                        return Err(format!("at {index} agent {} is of {other} and of {id}", vm.agent));
                    }
                }
            }
        }
        Ok(())
    }
}
