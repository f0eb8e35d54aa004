//! The state and the world outside as text, without ids: two runs that did the same give the same text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use model::DeploymentName;

use crate::ended::without_ids;
use crate::world::TestWorld;

/// Describes everything that a deploy leaves behind.
pub fn summary(world: &TestWorld) -> String {
    let mut out = String::new();
    let cloud = world.outside.cloud.cloud();
    world.read(|state| {
        for deployment in state.deployments() {
            let deployed = if deployment.record.is_some() { "deployed" } else { "never deployed" };
            writeln!(out, "deployment {} {deployed}", deployment.name).unwrap();
            instances(world, &deployment.name, &mut out);
        }
        let mut addresses = state.addresses();
        addresses.sort_by_key(|a| a.ip);
        let held: Vec<String> =
            addresses.iter().map(|a| format!("{}={}", a.ip, without_ids(&a.slug))).collect();
        writeln!(out, "addresses {}", words(&held)).unwrap();
        let compiled: Vec<String> =
            state.compiled_packages().iter().map(|p| p.key.name.to_string()).collect();
        writeln!(out, "compiled {}", words(&compiled)).unwrap();
        // Not in the order of their ids, which are chance.
        let mut orphans: Vec<u64> = state.orphaned_disks().iter().map(|d| d.disk.spec.size_mib).collect();
        orphans.sort_unstable();
        let orphans: Vec<String> = orphans.iter().map(u64::to_string).collect();
        writeln!(out, "orphans {}", words(&orphans)).unwrap();
        let vms: Vec<String> = state.orphaned_vms().iter().map(|o| o.vm.stemcell.name.clone()).collect();
        if !vms.is_empty() {
            writeln!(out, "orphaned VMs {}", words(&vms)).unwrap();
        }
        writeln!(out, "locks {} leaks {}", state.locks().len(), state.leaks().len()).unwrap();
        writeln!(out, "agents {}", state.agents().len()).unwrap();
    });
    writeln!(
        out,
        "cloud {} VMs {} disks {} stemcells",
        cloud.vms.len(),
        cloud.disks.len(),
        cloud.stemcells.len()
    )
    .unwrap();
    if !cloud.snapshots.is_empty() {
        writeln!(out, "snapshots {}", cloud.snapshots.len()).unwrap();
    }
    out
}

fn words(list: &[String]) -> String {
    if list.is_empty() { "none".to_owned() } else { list.join(" ") }
}

/// Describes the instances alone, without what depends on detours: addresses, and disks that were given up on the way.
pub fn instances_of(world: &TestWorld) -> Vec<String> {
    without_detours(&summary(world))
}

/// Returns the instance lines of a summary, without addresses and what they are rendered into.
pub fn without_detours(summary: &str) -> Vec<String> {
    let lines = summary.lines().filter(|line| line.starts_with("  "));
    let keep = |word: &&str| word.parse::<std::net::IpAddr>().is_err() && !word.starts_with("config=");
    lines.map(|line| line.split(' ').filter(keep).collect::<Vec<_>>().join(" ")).collect()
}

fn instances(world: &TestWorld, deployment: &DeploymentName, out: &mut String) {
    let cloud = world.outside.cloud.cloud();
    world.read(|state| {
        let mut instances = state.instances(deployment);
        instances.sort_by_key(|i| (i.spec.group.clone(), i.spec.index));
        for instance in instances {
            let spec = &instance.spec;
            let ips: Vec<String> =
                spec.networks.iter().filter_map(|n| n.ip).map(|ip| ip.to_string()).collect();
            let clean = if instance.update_completed { "clean" } else { "dirty" };
            write!(out, "  {}/{} {:?} {clean} {}", spec.group, spec.index, instance.state, ips.join(" "))
                .unwrap();
            write!(out, " config={}", spec.configuration_hash.as_deref().unwrap_or("none")).unwrap();
            for vm in state.vms(&spec.id) {
                let real = vm.cid.as_ref().and_then(|cid| cloud.vms.get(cid));
                let active = if vm.active { "active" } else { "inactive" };
                write!(out, " vm({active} cpu={}", vm.cloud_properties["cpu"]).unwrap();
                match real {
                    Some(real) => {
                        write!(out, " disks={} tags={})", real.disks.len(), real.metadata.len()).unwrap()
                    }
                    None => write!(out, " missing)").unwrap(),
                }
            }
            for vm in state.vms(&spec.id).iter().filter(|vm| vm.active) {
                let named = world.outside.agents.named_disks(&vm.agent);
                // Jobs find what the state says that they find.
                let recorded: BTreeMap<_, _> = (state.disks(&spec.id).into_iter().filter(|disk| disk.active))
                    .filter_map(|disk| {
                        Some((disk.spec.name?.to_string(), disk.cid.map(|cid| cid.to_string())))
                    })
                    .collect();
                assert_eq!(named, recorded, "{}", instance.slug());
                if !named.is_empty() {
                    let names: Vec<String> = named.into_keys().collect();
                    write!(out, " named({})", names.join(" ")).unwrap();
                }
            }
            let mut disks = state.disks(&spec.id);
            disks.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
            for disk in disks {
                let active = if disk.active { "active" } else { "inactive" };
                let attached =
                    disk.cid.as_ref().and_then(|cid| cloud.disks.get(cid)?.attached_to.as_ref()).is_some();
                write!(out, " disk({active} {}MiB attached={attached})", disk.spec.size_mib).unwrap();
            }
            writeln!(out).unwrap();
        }
    });
}
