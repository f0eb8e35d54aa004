//! Hotswap (`create-swap-delete`): the VM that takes an old one's place is made ahead, while the old one works.
//!
//! Here: for whom that is so, and with which addresses. Not here: the deeds (`update`) and when their time comes
//! (`deploy`). Invariant: no two VMs of an instance have an address in common.

use std::collections::BTreeSet;

use model::cloud_config::CloudConfig;
use model::instance::{InstanceState, NetworkKind, Vm};
use model::manifest::InstanceGroup;
use model::manifest::update::VmStrategy;
use model::task::TaskError;

use crate::address::{AddressBook, Seeker};
use crate::diff;
use crate::draft::DraftInstance;
use crate::facts::Known;
use crate::input::{PlanInput, is_spare};
use crate::network;

/// Returns whether a group's VMs are made ahead. Where addresses are named, a second VM could have none: such a group is
/// updated as any other.
pub(crate) fn applies(group: &InstanceGroup) -> bool {
    let is_named = group.networks.iter().any(|n| n.kind == NetworkKind::Vip || n.static_ips.is_some());
    group.update.vm_strategy == VmStrategy::CreateSwapDelete && !is_named
}

/// What the addresses of a VM that is made ahead come from.
pub(crate) struct Swap<'a> {
    pub(crate) input: &'a PlanInput<'a>,
    pub(crate) group: &'a InstanceGroup,
    pub(crate) cloud: &'a CloudConfig,
}

impl Swap<'_> {
    /// Gives an instance whose VM is swapped the addresses of the one that takes its place. One that an earlier task has
    /// made ahead does, if it is what the instance should have, whether the present one differs or not.
    pub(crate) fn settle(
        &self,
        known: &Known<'_>,
        wanted: &mut DraftInstance,
        book: &mut AddressBook,
    ) -> Result<(), TaskError> {
        let Some(vm) = known.vm.filter(|_| wanted.state == InstanceState::Started) else { return Ok(()) };
        if !applies(self.group) || self.move_to_spare(known, wanted, book) {
            return Ok(());
        }
        let differs = diff::vm_differences(self.input, vm, known.instance.variable_set, &wanted.spec);
        if differs.is_empty() && !diff::is_recreated(self.input, known, wanted) {
            return Ok(());
        }
        // Spares that don't fit become orphans with their addresses. Whatever else is left over is deleted before.
        let with_addresses =
            std::iter::once(vm).chain(known.stale_vms.iter().copied().filter(|vm| is_spare(vm)));
        let of_vms: BTreeSet<_> =
            with_addresses.flat_map(|vm: &Vm| &vm.networks).filter_map(|network| network.ip).collect();
        let mut networks = wanted.spec.networks.clone();
        let who = Seeker::of(&wanted.spec);
        network::renew(&mut networks, &of_vms, self.group, self.cloud, book, &who)?;
        wanted.spec.networks = networks;
        Ok(())
    }

    /// Returns whether there is a VM that fits.
    fn move_to_spare(&self, known: &Known<'_>, wanted: &mut DraftInstance, book: &mut AddressBook) -> bool {
        let Some(spare) = known.spare.filter(|spare| spare.cpi == wanted.spec.cpi) else { return false };
        let who = Seeker::of(&wanted.spec);
        let settled = network::settle_on(&spare.networks, self.group, self.cloud, book, &who);
        let Some(networks) = settled else { return false };
        let before = std::mem::replace(&mut wanted.spec.networks, networks);
        let fits = diff::vm_differences(self.input, spare, spare.variable_set, &wanted.spec).is_empty();
        if fits {
            wanted.ahead = Some(spare.agent.clone());
        } else {
            wanted.spec.networks = before;
        }
        fits
    }
}
