//! What belongs to an instance belongs to no other one, in whatever deployment.

use std::collections::BTreeMap;

use checkers::{Findings, Report};
use proto::v1::Instance;

/// Judges all instances of a fleet.
pub(super) fn check(instances: &[Instance]) -> Report {
    let mut found = Findings::<String>::default();
    let mut owners: BTreeMap<(&str, &str), String> = BTreeMap::new();
    for instance in instances {
        let by = name(instance);
        let own = [("VM", &instance.vm_cid), ("agent", &instance.agent_id)].into_iter();
        let addresses = instance.ips.iter().map(|ip| ("address", ip));
        let disks = instance.disk_cids.iter().map(|cid| ("disk", cid));
        for (kind, id) in own.chain(addresses).chain(disks).filter(|(_, id)| !id.is_empty()) {
            if let Some(first) = owners.insert((kind, id), by.clone()) {
                found.violations.push(format!("{kind} `{id}` belongs to {first} and to {by}"));
            }
        }
    }
    found.looked_at = vec![("instances", instances.len()), ("belongings", owners.len())];
    found.report("instances")
}

/// Returns an instance's name, for people.
pub(super) fn name(instance: &Instance) -> String {
    format!("{}, {}/{}", instance.deployment, instance.group, instance.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, vm: &str, ip: &str) -> Instance {
        Instance {
            deployment: "d".into(),
            group: "g".into(),
            id: id.into(),
            vm_cid: vm.into(),
            ips: vec![ip.into()],
            ..Instance::default()
        }
    }

    #[test]
    fn nothing_has_two_owners_and_what_is_not_there_has_none() {
        assert!(check(&[instance("1", "vm-1", "10.0.0.1"), instance("2", "vm-2", "10.0.0.2")]).holds());
        assert!(check(&[instance("1", "", "10.0.0.1"), instance("2", "", "10.0.0.2")]).holds());
        let twice = check(&[instance("1", "vm-1", "10.0.0.1"), instance("2", "vm-2", "10.0.0.1")]);
        assert_eq!(twice.violations, ["address `10.0.0.1` belongs to d, g/1 and to d, g/2"]);
    }
}
