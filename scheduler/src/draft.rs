//! The first half of planning: everything that can be decided before templates are rendered.

use std::collections::{BTreeMap, BTreeSet};

use model::dns::DnsSubject;
use model::instance::{Instance, InstanceSpec, InstanceState, Lifecycle};
use model::manifest::{InstanceGroup, Stock};
use model::plan::{DeploymentRecord, Reservation};
use model::task::{StateChange, TaskError};
use model::*;
use serde_json::Value;

use crate::address::{AddressBook, Seeker};
use crate::bind::{self, BoundGroup};
use crate::chance::{Ids, SeededIds};
use crate::documents::{self, Documents};
use crate::facts::Facts;
use crate::hotswap::Swap;
use crate::input::{AgentObservation, PlanInput};
use crate::links::{self, content, resolve};
use crate::migrate::Adopted;
use crate::placement::{self, Existing, Placement, Slot};
use crate::references::References;
use crate::{desired, ignored, managed, network, order, state_change, statics, variables};

/// A variable to generate before templates are rendered, in this order.
#[derive(Clone, Debug, PartialEq)]
pub struct VariableDefinition {
    /// The absolute name.
    pub name: VariableName,
    /// `password`, `certificate`, `ssh`, `rsa` or whatever the store knows.
    pub kind: String,
    /// Options with `ca` made absolute and link addresses filled in.
    pub options: Value,
    /// What to do if it exists: `no-overwrite`, `overwrite` or `converge`.
    pub mode: String,
    /// When it is looked at anew.
    pub renewal: Renewal,
}

/// When a variable is looked at anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// With this deploy, as its mode says.
    Now,
    /// Later: the version that the last successful deploy saw stays, if it saw one. (The strategy is
    /// `on-stemcell-change`, and some stemcell has stayed.)
    Later,
}

/// What a job's templates rendered to, as hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RenderedHashes {
    /// Over all jobs' files and destinations.
    pub configuration_hash: String,
    /// Over each job's files.
    pub template_hashes: BTreeMap<JobName, String>,
}

/// One desired instance before rendering.
#[derive(Clone, Debug, PartialEq)]
pub struct DraftInstance {
    /// What it should be; hashes are still empty.
    pub spec: InstanceSpec,
    /// What the operator wants of it.
    pub state: InstanceState,
    /// Whether it must be rendered: instances that are left alone and errand groups without VMs need not.
    pub render: bool,
    /// What was asked for beyond a state.
    pub(crate) request: Option<StateChange>,
    /// The agent in a VM that an earlier task has made ahead and that takes the place of the present one.
    pub(crate) ahead: Option<AgentId>,
}

/// A deployment decided up to the rendering of templates.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Desired instances, group by group in manifest order.
    pub instances: Vec<DraftInstance>,
    /// Instances to delete.
    pub obsolete: Vec<InstanceId>,
    /// Addresses to take.
    pub reservations: Vec<Reservation>,
    /// Variables to generate, in order.
    pub variables: Vec<VariableDefinition>,
    /// Variables that are used, generated or not.
    pub references: References,
    /// What a success stores.
    pub record: DeploymentRecord,
    /// Deprecations and the like for the task's output.
    pub warnings: Vec<String>,
    /// What DNS names tell by number, in the order in which what has none is given one.
    pub dns_subjects: Vec<DnsSubject>,
    /// What would be in names of this draft if it had a number in DNS. Long names are there in their place.
    pub unnumbered: Vec<DnsSubject>,
    /// Those of them whose group stays, and that group.
    pub(crate) surplus: BTreeMap<InstanceId, GroupName>,
    /// Groups as the manifest describes them.
    pub(crate) groups: Vec<InstanceGroup>,
    /// How packages are compiled.
    pub(crate) compile: crate::compile::Needs,
}

impl Draft {
    /// Returns the specs whose templates must be rendered before [`crate::plan`].
    pub fn to_render(&self) -> impl Iterator<Item = &InstanceSpec> {
        self.instances.iter().filter(|i| i.render).map(|i| &i.spec)
    }
}

/// Decides everything that does not depend on rendered templates.
pub fn draft(input: &PlanInput<'_>) -> Result<Draft, TaskError> {
    let notes = state_change::check(input)?;
    let documents = documents::read(input)?;
    managed::check_made(&documents)?;
    let stock = Stock { releases: input.releases, stemcells: input.stemcells };
    documents.manifest.check_sources(stock)?;
    let groups = bind::bind(&documents.manifest, stock)?;
    let mut providers = resolve::providers(input.deployment.name, &groups);
    let connections = resolve::connect(input.deployment.name, &groups, &providers, input.others)?;
    check_agents(input)?;
    let mut placed = place_all(input, &documents, &groups)?;
    let addressing = documents.addressing(input);
    for bound in &groups {
        let members = order::in_turn(&bound.group.name, placed.instances.iter().map(|i| &i.spec));
        content::fill(&mut providers, bound, &members, &addressing)?;
    }
    attach_links(input, &mut placed.instances, &providers, &connections)?;
    let variables = variables::define(input, &documents, &providers)?;
    let compile = crate::compile::Needs::of(input, &documents, &groups, stock, &mut placed.book)?;
    for spec in placed.instances.iter_mut().map(|i| &mut i.spec) {
        for at in 0..spec.packages.len() {
            spec.packages[at].compiled_on = compile.compiled_on(&spec.packages[at], spec);
        }
    }
    let links =
        links::listed::of(input.deployment.name, &groups, &documents.variables, &providers, &connections)?;
    let record =
        DeploymentRecord { planned_links: Some(Box::new(links)), ..record(input, &documents, providers) };
    let specs = placed.instances.iter().map(|i| &i.spec).chain(compile.workers());
    let references = References::of(input, documents.early.clone(), specs);
    let unnumbered = match addressing.uses_short_names() {
        true => unnumbered(input, &documents, &placed.instances),
        false => Vec::new(),
    };
    Ok(Draft {
        unnumbered,
        dns_subjects: dns_subjects(input.deployment.name, &documents, &placed.instances),
        instances: placed.instances,
        obsolete: placed.obsolete,
        surplus: placed.surplus,
        reservations: placed.book.into_reservations(),
        variables,
        references,
        record,
        warnings: documents.manifest.warnings.iter().cloned().chain(notes).chain(left_alone(input)).collect(),
        groups: documents.manifest.groups,
        compile,
    })
}

/// Returns what is said to whoever deploys beside instances that nobody touches.
fn left_alone(input: &PlanInput<'_>) -> Option<String> {
    let has_ignored = input.deployment.instances.iter().any(|instance| instance.ignore);
    has_ignored.then(|| "You have ignored instances. They will not be changed.".to_owned())
}

/// A dead agent fails the deploy before anything is touched, unless nobody needs it (450002).
fn check_agents(input: &PlanInput<'_>) -> Result<(), TaskError> {
    let needed = |i: &&Instance| !i.compilation && !state_change::may_be_silent(input, i);
    for instance in input.deployment.instances.iter().filter(needed) {
        if let Some(AgentObservation::Unresponsive { error }) = input.deployment.agents.get(&instance.spec.id)
        {
            return Err(TaskError {
                code: error.code,
                message: format!("{}: {}", instance.slug(), error.message),
            });
        }
    }
    Ok(())
}

struct Placed {
    instances: Vec<DraftInstance>,
    obsolete: Vec<InstanceId>,
    surplus: BTreeMap<InstanceId, GroupName>,
    book: AddressBook,
}

fn place_all(
    input: &PlanInput<'_>,
    documents: &Documents,
    groups: &[BoundGroup<'_>],
) -> Result<Placed, TaskError> {
    let facts = &input.deployment;
    let mut adopted = Adopted::sort(&documents.manifest, facts.instances, facts.disks)?;
    let mut placed = Placed {
        instances: Vec::new(),
        obsolete: adopted.orphans.iter().map(|i| i.spec.id.clone()).collect(),
        surplus: BTreeMap::new(),
        book: AddressBook::new(input.addresses),
    };
    let leftovers = facts.instances.iter().filter(|i| i.compilation).map(|i| i.spec.id.clone());
    placed.obsolete.extend(leftovers);
    let mut indexes = Indexes::of(facts.instances);
    let mut ids = SeededIds::new(facts.seed, "instances");
    let known = Facts::of(facts);
    let with_vm: BTreeSet<&InstanceId> =
        facts.vms.iter().filter(|v| v.is_current()).map(|v| &v.instance).collect();
    for bound in groups {
        let existing = adopted.take(&bound.group.name);
        ignored::check(bound.group, &existing)?;
        let mut placement = place(input, documents, bound.group, &existing, &placed.book)?;
        statics::assign_vips(bound.group, &existing, &mut placement.slots);
        for id in placement.obsolete.iter().map(|at| &existing[*at].instance.spec.id) {
            placed.obsolete.push(id.clone());
            placed.surplus.insert(id.clone(), bound.group.name.clone());
        }
        let seats = seat(bound.group, &existing, &placement.slots, &mut indexes, &mut ids);
        for (slot, seat) in placement.slots.iter().zip(seats) {
            let before = slot.existing.map(|at| existing[at].instance);
            let spec = desired::spec(input, documents, bound, &seat, |who: &Seeker<'_>| match before {
                // It has what it has, whatever the cloud config says by now.
                Some(known) if state_change::is_left_alone(input, known) => Ok(known.spec.networks.clone()),
                _ => {
                    let known = before.map_or(&[][..], |i| &i.spec.networks);
                    network::settle(bound.group, &documents.cloud, slot, known, &mut placed.book, who)
                }
            })?;
            let (state, request) = desired::state(input, bound.group, &spec, before);
            let errand_at_rest = spec.lifecycle == Lifecycle::Errand && !with_vm.contains(&spec.id);
            let left_alone = before.is_some_and(|known| state_change::is_left_alone(input, known));
            let render = !errand_at_rest && !left_alone;
            let mut instance = DraftInstance { spec, state, render, request, ahead: None };
            if let Some(known) = known.get(&instance.spec.id).filter(|_| render) {
                let swap = Swap { input, group: bound.group, cloud: &documents.cloud };
                swap.settle(known, &mut instance, &mut placed.book)?;
            }
            placed.instances.push(instance);
        }
    }
    Ok(placed)
}

fn place(
    input: &PlanInput<'_>,
    documents: &Documents,
    group: &InstanceGroup,
    existing: &[Existing<'_>],
    book: &AddressBook,
) -> Result<Placement, TaskError> {
    if statics::applies(group) {
        return statics::place(group, existing, &documents.cloud, book);
    }
    let mut chance = SeededIds::new(input.deployment.seed, "placement");
    let random = documents.manifest.features.randomize_az_placement;
    Ok(placement::place(group, existing, random.then_some(&mut chance as &mut dyn Ids)))
}

/// Identity of an instance in its group.
pub(crate) struct Seat {
    pub(crate) id: InstanceId,
    pub(crate) index: u32,
    pub(crate) az: Option<AzName>,
    pub(crate) bootstrap: bool,
}

/// Indexes in use: those of instances about to be deleted stay blocked.
struct Indexes(BTreeMap<GroupName, BTreeSet<u32>>);

impl Indexes {
    fn of(instances: &[Instance]) -> Self {
        let mut used: BTreeMap<GroupName, BTreeSet<u32>> = BTreeMap::new();
        for instance in instances {
            used.entry(instance.spec.group.clone()).or_default().insert(instance.spec.index);
        }
        Self(used)
    }

    /// Takes the smallest free index of a group.
    fn take(&mut self, group: &GroupName) -> u32 {
        let used = self.0.entry(group.clone()).or_default();
        // The first gap in a sorted set.
        let free = used.iter().enumerate().find(|(at, index)| *at as u32 != **index).map(|(at, _)| at as u32);
        let index = free.unwrap_or(used.len() as u32);
        used.insert(index);
        index
    }
}

fn seat(
    group: &InstanceGroup,
    existing: &[Existing<'_>],
    slots: &[Slot],
    indexes: &mut Indexes,
    ids: &mut dyn Ids,
) -> Vec<Seat> {
    let mut seats: Vec<Seat> = slots
        .iter()
        .map(|slot| {
            let known = slot.existing.map(|at| &existing[at]);
            let kept = known.filter(|k| !k.migrated).map(|k| k.instance.spec.index);
            Seat {
                id: known.map_or_else(|| InstanceId::new(ids.next()), |k| k.instance.spec.id.clone()),
                index: kept.unwrap_or_else(|| indexes.take(&group.name)),
                az: slot.az.clone(),
                bootstrap: known.is_some_and(|k| k.instance.spec.bootstrap),
            }
        })
        .collect();
    if seats.iter().filter(|s| s.bootstrap).count() != 1 {
        let lowest = seats.iter().map(|s| s.index).min();
        for seat in &mut seats {
            seat.bootstrap = Some(seat.index) == lowest;
        }
    }
    seats
}

fn attach_links(
    input: &PlanInput<'_>,
    instances: &mut [DraftInstance],
    providers: &[links::Provider],
    connections: &resolve::Connections,
) -> Result<(), TaskError> {
    // Computed once per link, not once per instance: a group of a thousand shares it.
    let mut contents: BTreeMap<(&GroupName, &JobName), Vec<(&str, Value)>> = BTreeMap::new();
    for ((group, job, link), source) in connections {
        let content = content::of(source, providers, input.deployment.name, input.director)?;
        contents.entry((group, job)).or_default().push((link, content));
    }
    let stored = stored_links(input);
    for spec in instances.iter_mut().map(|i| &mut i.spec) {
        for job in &mut spec.jobs {
            if let Some(links) = stored.get(&(&spec.id, &job.name)) {
                job.links = (*links).clone();
                continue;
            }
            let found = contents.get(&(&spec.group, &job.name)).into_iter().flatten();
            job.links = found.map(|(link, content)| ((*link).to_owned(), content.clone())).collect();
        }
    }
    Ok(())
}

fn dns_subjects(
    deployment: &DeploymentName,
    documents: &Documents,
    instances: &[DraftInstance],
) -> Vec<DnsSubject> {
    let zones = documents.cloud.azs.keys().map(|az| DnsSubject::Zone(az.clone()));
    let networks = documents.cloud.networks.iter().map(|n| DnsSubject::Network(n.name.clone()));
    let groups = &documents.manifest.groups;
    let groups = groups.iter().map(|g| DnsSubject::Group(deployment.clone(), g.name.clone()));
    let links = instances.iter().flat_map(|i| &i.spec.jobs).flat_map(|job| &job.provides);
    let links = links.map(|link| DnsSubject::Link(deployment.clone(), link.group_name()));
    let mut seen = BTreeSet::new();
    zones.chain(networks).chain(groups).chain(links).filter(|s| seen.insert(s.clone())).collect()
}

/// Returns what has no number yet, of all that short names tell.
fn unnumbered(input: &PlanInput<'_>, documents: &Documents, instances: &[DraftInstance]) -> Vec<DnsSubject> {
    let deployment = input.deployment.name;
    let own = instances.iter().map(|i| DnsSubject::Instance(deployment.clone(), i.spec.id.clone()));
    let all = dns_subjects(deployment, documents, instances).into_iter().chain(own);
    all.filter(|subject| !input.dns_numbers.contains_key(subject)).collect()
}

type Links = BTreeMap<String, Value>;

/// A change of state resolves no links anew: instances keep what they have. Those that are not up have what they had
/// when they went down, which later deploys may have changed.
fn stored_links<'a>(input: &PlanInput<'a>) -> BTreeMap<(&'a InstanceId, &'a JobName), &'a Links> {
    let up = |i: &&Instance| i.state == InstanceState::Started && i.update_completed;
    let instances = input.deployment.instances.iter().filter(|_| input.change.is_some()).filter(up);
    instances.flat_map(|i| i.spec.jobs.iter().map(|job| ((&i.spec.id, &job.name), &job.links))).collect()
}

fn record(input: &PlanInput<'_>, documents: &Documents, providers: Vec<links::Provider>) -> DeploymentRecord {
    let mut manifest = documents.posted.clone();
    if let Some(Value::Array(items)) = manifest.get_mut("releases") {
        for (item, release) in items.iter_mut().zip(&documents.manifest.releases) {
            item["version"] = Value::from(release.release.version.as_str());
        }
    }
    if let Some(Value::Array(items)) = manifest.get_mut("stemcells") {
        for (item, stemcell) in items.iter_mut().zip(&documents.manifest.stemcells) {
            item["version"] = Value::from(stemcell.version.as_str());
        }
    }
    DeploymentRecord {
        name: input.deployment.name.clone(),
        manifest_text: input.manifest_text.to_owned(),
        manifest: Value::Object(manifest),
        configs: documents.configs.clone(),
        releases: documents.manifest.releases.iter().map(|r| r.release.clone()).collect(),
        stemcells: documents.stemcells(input).into_iter().collect(),
        links: serde_json::to_value(links::Stored { providers }).unwrap_or(Value::Null),
        tags: documents.tags.iter().cloned().collect(),
        variable_set: input.variables.set,
        planned_links: None,
        managed_networks: managed::used(documents).map(|network| network.name.clone()).collect(),
    }
}
