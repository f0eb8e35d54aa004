//! Feature levels: what a member must know before it is sent a command.
//!
//! New fields have defaults, and new variants are refused where they are unknown. So a member that is older than what a
//! command says would do something else with it than the others, and its state would be another one from there on.

use model::link::{LinkOwnerKind, Links};
use model::plan::{Needs, OnFailure, Plan, Reservation, Step, Target, Unit};
use model::step::{Action, Left, StepOutcome, VmRole};
use model::task::TaskKind;

use crate::command::{Command, DraftPart, StepEvent, StepRecord};
use crate::records::Setting;

/// The newest feature level there is: what a member of this version announces. See [`Command::feature_level`].
pub const FEATURE_LEVEL: u32 = THIRD_LEVEL;

/// The level that brought what [`Command::feature_level`] lists, among it numbers in DNS names and remembered errands.
pub const SECOND_LEVEL: u32 = 2;

/// The level that brought disks that have names, networks that directors make, agents of BOSH's and their certificates, and
/// dynamic disks.
pub const THIRD_LEVEL: u32 = 3;

impl Command {
    /// Returns the feature level that brought the command, or something that is in it. It must not be proposed before
    /// every member has announced that level.
    pub fn feature_level(&self) -> u32 {
        if self.is_third() {
            return THIRD_LEVEL;
        }
        let is_second = match self {
            Self::StemcellRetire { .. }
            | Self::UserTokenPut { .. }
            | Self::UserTokenRemove { .. }
            | Self::VariablesPin { .. }
            | Self::MeltdownPut { .. }
            | Self::LatecomerPut { .. }
            | Self::LatecomerLooked { .. }
            | Self::TaskReport { .. }
            | Self::BundlePut { .. }
            | Self::BundlesForget { .. }
            | Self::ProblemsFound { .. }
            | Self::ForTeams { .. }
            | Self::LinkPut { .. }
            | Self::LinkRemove { .. }
            | Self::ExportPut { .. }
            | Self::ConfigVersionDelete { .. }
            | Self::DnsNumber { .. }
            | Self::DnsPut { .. }
            | Self::DnsForget { .. }
            | Self::AgentsJobs { .. }
            | Self::BlobsForget { .. }
            | Self::BlobKeep { .. }
            | Self::BlobsLeave { .. } => true,
            Self::ReleasePut { fix, partial, .. } => *fix || *partial,
            Self::ReleaseDelete { with_compiled, .. } => *with_compiled,
            Self::TaskQueue { kind: TaskKind::RunErrand { when_changed, .. }, .. } => *when_changed,
            Self::TaskQueue { kind: TaskKind::Deploy { options, .. }, .. } => {
                options.configs.is_some() || options.created_before.is_some()
            }
            Self::TaskQueue { kind: TaskKind::ChangeState { dry_run, created_before, .. }, .. } => {
                *dry_run || created_before.is_some()
            }
            Self::TaskQueue {
                kind:
                    TaskKind::DeleteOrphanedVms { .. }
                    | TaskKind::Inspect { .. }
                    | TaskKind::CleanUp { .. }
                    | TaskKind::FetchLogs { .. }
                    | TaskKind::OrphanDisk { .. }
                    | TaskKind::AttachDisk { .. }
                    | TaskKind::DeleteVm { .. }
                    | TaskKind::Ssh { .. }
                    | TaskKind::ScanCloud
                    | TaskKind::ApplyResolutions { .. }
                    | TaskKind::ChangeInstance { .. }
                    | TaskKind::ExportRelease { .. }
                    | TaskKind::FetchRelease { .. }
                    | TaskKind::FetchStemcell { .. }
                    | TaskKind::TakeSnapshots { .. }
                    | TaskKind::DeleteSnapshots { .. },
                ..
            } => true,
            Self::TaskQueue { kind: TaskKind::ScanAndFix { unknown, .. }, .. } => !unknown.is_empty(),
            Self::PlanDraft { content, .. } => is_second_part(content),
            Self::PlanCommit { plan, .. } => is_second_plan(plan),
            Self::StepRecords { records, .. } => records.iter().any(is_second_record),
            _ => false,
        };
        if is_second { SECOND_LEVEL } else { 1 }
    }

    /// Plans with disks that have names, all about networks that directors make, agents of BOSH's and dynamic disks, and
    /// about stemcells whose agent is not the one of their name. What is recorded later of the plans' steps needs the plan, so that
    /// it says nothing new.
    fn is_third(&self) -> bool {
        match self {
            Self::NetworkTake { .. }
            | Self::SubnetPut { .. }
            | Self::NetworkRetire { .. }
            | Self::AgentAsked { .. }
            | Self::AgentBrought { .. }
            | Self::DynamicDisk { .. }
            | Self::VmLeaves { .. }
            | Self::CertificateOffer { .. }
            | Self::SettingPut { setting: Setting::ManagedNetworks(_) }
            | Self::TaskQueue {
                kind:
                    TaskKind::DeleteOrphanedNetworks { .. }
                    | TaskKind::RotateCertificates { .. }
                    | TaskKind::CreateDynamicDisk { .. }
                    | TaskKind::AttachDynamicDisk { .. }
                    | TaskKind::ProvideDynamicDisk { .. }
                    | TaskKind::DetachDynamicDisk { .. }
                    | TaskKind::DeleteDynamicDisk { .. },
                ..
            } => true,
            Self::StemcellPut { stemcell, .. } => stemcell.stemcell.agent.is_some(),
            Self::PlanDraft { content, .. } => {
                content.targets.iter().any(is_third_target)
                    || content.units.iter().any(|piece| names_disk(&piece.unit))
            }
            Self::PlanCommit { plan, .. } => {
                let links = plan.record.as_ref().and_then(|record| record.planned_links.as_ref());
                plan.targets.iter().any(is_third_target)
                    || plan.units().any(names_disk)
                    || links.is_some_and(|links| offers_disk(links))
                    || plan.record.as_ref().is_some_and(|record| !record.managed_networks.is_empty())
            }
            _ => false,
        }
    }
}

/// Disks that have names, and stemcells whose agent is not the one of their name.
fn is_third_target(target: &Target) -> bool {
    !target.spec.named_disks.is_empty() || target.spec.stemcell.agent.is_some()
}

fn names_disk(unit: &Unit) -> bool {
    unit.steps.iter().any(|step| matches!(step.action, Action::CreateDisk { name: Some(_), .. }))
}

fn offers_disk(links: &Links) -> bool {
    links.offers.iter().any(|offer| offer.owner.kind == LinkOwnerKind::Disk)
}

fn is_second_part(part: &DraftPart) -> bool {
    !part.record.is_empty()
        || part.units.iter().any(|piece| is_second_unit(&piece.unit))
        || part.reservations.iter().any(is_block)
}

fn is_second_plan(plan: &Plan) -> bool {
    !plan.dns_subjects.is_empty()
        || plan.record.as_ref().is_some_and(|record| record.planned_links.is_some())
        || plan.units().any(is_second_unit)
        || plan.reservations.iter().any(is_block)
}

/// Units that need not all end well, steps that may fail, errands that are remembered, VMs that are made ahead or
/// deleted later, what is done about problems, and snapshots.
fn is_second_unit(unit: &Unit) -> bool {
    let is_second = |step: &Step| {
        step.on_failure != OnFailure::Stop
            || matches!(
                step.action,
                Action::SaveErrand { .. }
                    | Action::OrphanVm { .. }
                    | Action::DeleteOrphanedVm { .. }
                    | Action::AdoptDisk { .. }
                    | Action::DeleteForeignVm { .. }
                    | Action::ConfirmProblem { .. }
                    | Action::RebootVm { .. }
                    | Action::CloseProblem { .. }
                    | Action::ForgetVm { .. }
                    | Action::ActivateDisk { .. }
                    | Action::ElectVm { .. }
                    | Action::SnapshotDisk { .. }
                    | Action::DeleteSnapshot { .. }
                    | Action::CreateVm { role: VmRole::Spare, .. }
            )
    };
    unit.needs != Needs::All || unit.on_failure != OnFailure::Stop || unit.steps.iter().any(is_second)
}

/// Whole blocks of addresses.
fn is_block(taken: &Reservation) -> bool {
    taken.prefix.is_some()
}

fn is_second_record(record: &StepRecord) -> bool {
    match &record.event {
        StepEvent::Finished(StepOutcome::PassedOver { .. }) => true,
        StepEvent::Finished(StepOutcome::Failed { left, result_line, .. }) => {
            *left != Left::Nothing || result_line.is_some()
        }
        _ => false,
    }
}
