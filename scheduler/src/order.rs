//! Order: zones take turns, canaries go first, no more than `max_in_flight` at once.

use std::collections::BTreeSet;

use model::instance::InstanceSpec;
use model::manifest::UpdateConfig;
use model::manifest::update::Turns;
use model::plan::Wave;
use model::step::WatchKind;
use model::task::TaskError;
use model::*;

use crate::steps::{Steps, Units};

/// An instance in line, and how to make its steps once it is known whether it is a canary.
pub(crate) struct InLine<'a> {
    pub(crate) spec: &'a InstanceSpec,
    pub(crate) steps: Box<dyn Fn(WatchKind) -> Steps + 'a>,
}

/// Whether the deployment ever succeeded; zones of a first deploy may go all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum History {
    /// Never.
    First,
    /// It did.
    Again,
}

/// Sorts a group's changed instances into waves; `leading` is the zone of its bootstrap instance, changed or not.
pub(crate) fn waves(
    mut line: Vec<InLine<'_>>,
    leading: Option<&AzName>,
    update: &UpdateConfig,
    history: History,
    units: &mut Units,
) -> Result<Vec<Wave>, TaskError> {
    sort(&mut line, leading);
    let parallel = history == History::First && update.initial_az_turns == Turns::Parallel;
    let mut zones: Vec<Vec<InLine<'_>>> = Vec::new();
    for member in line {
        let same_zone = |zone: &&mut Vec<InLine<'_>>| parallel || zone[0].spec.az == member.spec.az;
        match zones.last_mut().filter(same_zone) {
            Some(zone) => zone.push(member),
            None => zones.push(vec![member]),
        }
    }
    let mut waves = Vec::new();
    for (at, zone) in zones.into_iter().enumerate() {
        let max_in_flight = update.in_flight_of(zone.len())?;
        let canaries = if at == 0 { update.canaries_of(zone.len())? as usize } else { 0 };
        let mut members = zone.into_iter();
        let first: Vec<InLine<'_>> = members.by_ref().take(canaries).collect();
        for (members, watch) in [(first, WatchKind::Canary), (members.collect(), WatchKind::Update)] {
            if !members.is_empty() {
                let units = members.into_iter().map(|m| unit(&m, watch, units)).collect();
                waves.push(Wave { max_in_flight, units });
            }
        }
    }
    Ok(waves)
}

fn unit(member: &InLine<'_>, watch: WatchKind, units: &mut Units) -> model::plan::Unit {
    let canary = if watch == WatchKind::Canary { " (canary)" } else { "" };
    let label = format!("{}{canary}", label(member.spec));
    units.unit(label, BTreeSet::new(), (member.steps)(watch))
}

/// Returns `group/uuid (index)`.
pub(crate) fn label(spec: &InstanceSpec) -> String {
    format!("{}/{} ({})", spec.group, spec.id, spec.index)
}

/// Where an instance stands in its group: the bootstrap instance first, then the rest of its zone, then instances
/// without zone, then other zones by name; by UUID inside a zone.
fn standing(spec: &InstanceSpec, leading: Option<&AzName>) -> impl Ord + use<> {
    let leads = leading.is_some() && spec.az.as_ref() == leading;
    (!spec.bootstrap, !leads, spec.az.clone(), spec.id.clone())
}

fn sort(line: &mut [InLine<'_>], leading: Option<&AzName>) {
    line.sort_by_cached_key(|m| standing(m.spec, leading));
}

/// Returns a group's instances in the order in which they take turns, which is also that of links: it stays, whatever
/// the order in which they were placed.
pub(crate) fn in_turn<'a>(
    group: &GroupName,
    all: impl Iterator<Item = &'a InstanceSpec>,
) -> Vec<&'a InstanceSpec> {
    let mut members: Vec<&InstanceSpec> = all.filter(|spec| spec.group == *group).collect();
    let leading = members.iter().find(|spec| spec.bootstrap).and_then(|spec| spec.az.clone());
    members.sort_by_cached_key(|spec| standing(spec, leading.as_ref()));
    members
}
