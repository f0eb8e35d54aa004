//! Reading the documents of a deploy: manifest, cloud configs and runtime configs, with placeholders resolved where
//! they must be and addons applied.

use std::collections::BTreeSet;

use model::cloud_config::{self, CloudConfig, Surroundings};
use model::config::StoredConfig;
use model::cpi_config::CpiConfigs;
use model::interpolate::{self, CLOUD_LATER, MANIFEST_LATER, Pattern, RUNTIME_LATER};
use model::manifest::addon::{Addon, Candidate};
use model::manifest::variable::{VariableSpec, absolute_name};
use model::manifest::{self, Context, GroupJob, Manifest, ManifestRelease, Overrides, Stock};
use model::runtime_config::{self, RuntimeConfig};
use model::task::TaskError;
use model::{instance::Lifecycle, yaml, *};
use serde_json::{Map, Value};

use crate::input::PlanInput;
use crate::links::content::Addressing;

/// Everything that the documents say, checked.
pub(crate) struct Documents {
    /// The manifest as posted, placeholders unresolved.
    pub(crate) posted: Map<String, Value>,
    pub(crate) manifest: Manifest,
    pub(crate) cloud: CloudConfig,
    pub(crate) cpis: CpiConfigs,
    /// Variables of the manifest and of all runtime configs.
    pub(crate) variables: Vec<VariableSpec>,
    /// Tags of runtime configs below those of the manifest.
    pub(crate) tags: Vec<(String, String)>,
    /// Configs that the deployment uses.
    pub(crate) configs: Vec<ConfigId>,
    /// Variables whose values were needed to read all this.
    pub(crate) early: BTreeSet<VariableName>,
}

impl Documents {
    /// Returns name and version of every stemcell that is used.
    pub(crate) fn stemcells(&self, input: &PlanInput<'_>) -> BTreeSet<(String, Version)> {
        let stock = Stock { releases: input.releases, stemcells: input.stemcells };
        let found = self.manifest.stemcells.iter().filter_map(|s| stock.stemcells(s).ok()).flatten();
        found.map(|s| (s.name.clone(), s.version.clone())).collect()
    }

    /// Returns how addresses are written.
    pub(crate) fn addressing<'a>(&'a self, input: &PlanInput<'a>) -> Addressing<'a> {
        Addressing { director: input.director, features: &self.manifest.features, numbers: input.dns_numbers }
    }
}

/// Whether a document may use names relative to the deployment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Relative,
    AbsoluteOnly,
}

/// Reads all documents, in the order in which BOSH complains about them.
pub(crate) fn read(input: &PlanInput<'_>) -> Result<Documents, TaskError> {
    let posted = yaml::parse_mapping(input.manifest_text)?;
    let name = manifest::name(&posted)?;
    manifest::check_forbidden_keys(&posted)?;
    let cpis = CpiConfigs::parse(of_kind(input.configs, "cpi").iter().map(|config| config.content.as_str()))?;
    let mut early = BTreeSet::new();
    let mut resolve = |map: &Map<String, Value>, later, names| {
        early.extend(interpolate::names(map, later).iter().filter_map(|used| {
            absolute_name(used, &input.director.name, name.as_str()).ok().map(VariableName::new)
        }));
        resolve(input, &name, map, later, names)
    };
    let stock = Stock { releases: input.releases, stemcells: input.stemcells };
    let cloud_configs = of_kind(input.configs, "cloud");
    let mut parsed = Vec::with_capacity(cloud_configs.len());
    for config in &cloud_configs {
        parsed.push(resolve(&yaml::parse_mapping(&config.content)?, CLOUD_LATER, Names::AbsoluteOnly)?);
    }
    let document = resolve(&posted, MANIFEST_LATER, Names::Relative)?;
    let surroundings = Surroundings { own: &input.director.addresses, made: input.managed_networks };
    let cloud = CloudConfig::parse_in(&cloud_config::merge(parsed)?, surroundings)?;
    let overrides = Overrides {
        canaries: input.options.canaries.as_deref(),
        max_in_flight: input.options.max_in_flight.as_deref(),
    };
    let mut manifest = Manifest::parse(&document, &Context { cloud: &cloud, stock, overrides })?;
    refuse_names(input, &manifest)?;
    check_zones(&cpis, &cloud, &manifest)?;
    let runtime_configs = of_kind(input.configs, "runtime");
    let mut parsed = Vec::with_capacity(runtime_configs.len());
    for config in &runtime_configs {
        // An empty runtime config is how people switch one off.
        let content = match yaml::parse(&config.content) {
            Ok(Value::Null) => Map::new(),
            _ => yaml::parse_mapping(&config.content)?,
        };
        parsed.push(resolve(&content, RUNTIME_LATER, Names::Relative)?);
    }
    let runtime = runtime_config::parse_all(&parsed)?;
    apply_addons(&mut manifest, &runtime, stock)?;
    let variables = join_variables(&manifest, &runtime)?;
    let mut tags: Vec<(String, String)> = runtime.iter().flat_map(|r| r.tags.clone()).collect();
    tags.extend(manifest.tags.clone());
    let configs = cloud_configs.iter().chain(&runtime_configs).map(|c| c.id).collect();
    Ok(Documents { posted, manifest, cloud, cpis, variables, tags, configs, early })
}

/// Zones that groups and compilation use name clouds that there are.
fn check_zones(cpis: &CpiConfigs, cloud: &CloudConfig, manifest: &Manifest) -> Result<(), TaskError> {
    let groups = manifest.groups.iter().flat_map(|group| &group.azs);
    let used: BTreeSet<&AzName> = groups.chain(&cloud.compilation.az).collect();
    used.into_iter().filter_map(|az| cloud.azs.get(az)).try_for_each(|az| cpis.check_zone(az))
}

/// Names that nobody resolves are of no use.
fn refuse_names(input: &PlanInput<'_>, manifest: &Manifest) -> Result<(), TaskError> {
    let features = &manifest.features;
    let asked = [
        ("use_link_dns_names", features.use_link_dns_names),
        ("use_short_dns_addresses", features.use_short_dns_addresses),
        ("use_dns_addresses", features.use_dns_addresses),
    ];
    match asked.into_iter().find(|(_, on)| *on == Some(true) && !input.director.local_dns) {
        Some((feature, _)) => Err(TaskError::plain(format!(
            "Feature '{feature}' needs local DNS, which agents do not have here"
        ))),
        None => Ok(()),
    }
}

/// Returns the configs of a kind, the one called `default` first.
fn of_kind<'a>(configs: &'a [StoredConfig], kind: &str) -> Vec<&'a StoredConfig> {
    let mut found: Vec<&StoredConfig> = configs.iter().filter(|c| c.kind == kind && !c.deleted).collect();
    found.sort_by_key(|c| (c.name != "default", c.name.clone()));
    found
}

fn resolve(
    input: &PlanInput<'_>,
    deployment: &DeploymentName,
    document: &Map<String, Value>,
    later: &[Pattern],
    names: Names,
) -> Result<Map<String, Value>, TaskError> {
    let lookup = |name: &str| {
        if names == Names::AbsoluteOnly && !name.starts_with('/') {
            return Err(TaskError::new(
                ErrorCode::ConfigServerIncorrectNameSyntax,
                format!(
                    "Relative paths are not allowed in this context. The following must be be switched to use absolute paths: '{name}'"
                ),
            ));
        }
        let absolute = absolute_name(name, &input.director.name, deployment.as_str())?;
        if !input.variables.available {
            return Err(TaskError::new(
                ErrorCode::ConfigServerDisabledError,
                format!(
                    "Failed to fetch variable '{absolute}' from config server: Director is not configured with a config server"
                ),
            ));
        }
        input.variables.values.get(absolute.as_str()).cloned().ok_or_else(|| {
            TaskError::new(
                ErrorCode::ConfigServerFetchError,
                format!("Failed to find variable '{absolute}' from config server: HTTP Code '404', Error: 'not found'"),
            )
        })
    };
    interpolate::resolve(document, later, &lookup)
}

/// Adds the jobs of every addon that matches, manifest first, then runtime configs in order.
fn apply_addons(
    manifest: &mut Manifest,
    runtime: &[RuntimeConfig],
    stock: Stock<'_>,
) -> Result<(), TaskError> {
    for addon in manifest.addons.clone() {
        apply(manifest, &addon, stock, None)?;
    }
    for config in runtime {
        for addon in &config.addons {
            apply(manifest, addon, stock, Some(config))?;
        }
    }
    Ok(())
}

fn apply(
    manifest: &mut Manifest,
    addon: &Addon,
    stock: Stock<'_>,
    runtime: Option<&RuntimeConfig>,
) -> Result<(), TaskError> {
    let matching: Vec<usize> =
        (0..manifest.groups.len()).filter(|at| addon.applies(&candidate(manifest, *at, stock))).collect();
    if matching.is_empty() {
        return Ok(());
    }
    if let Some(runtime) = runtime {
        add_releases(manifest, addon, runtime, stock)?;
    }
    for at in matching {
        for job in &addon.jobs {
            let release = manifest.releases.iter().find(|r| r.release.name == job.release).ok_or_else(|| {
                TaskError::new(
                    ErrorCode::AddonReleaseNotListedInReleases,
                    format!(
                        "Manifest specifies job '{}' which is defined in '{}', but '{}' is not listed in the releases section.",
                        job.name, job.release, job.release
                    ),
                )
            })?;
            let release = stock.release(&release.release)?;
            if release.job(job.name.as_str()).is_none() {
                return Err(TaskError::new(
                    ErrorCode::DeploymentUnknownTemplate,
                    format!("Can't find job '{}'", job.name),
                ));
            }
            let group = &mut manifest.groups[at];
            if group.jobs.iter().any(|j| j.name == job.name) {
                return Err(TaskError::plain(format!(
                    "Colocated job '{}' is already added to the instance group '{}'.",
                    job.name, group.name
                )));
            }
            group.jobs.push(GroupJob {
                name: job.name.clone(),
                release: release.release.clone(),
                properties: job.properties.clone(),
                consumes: job.consumes.clone(),
                provides: job.provides.clone(),
                custom_providers: Vec::new(),
            });
        }
    }
    Ok(())
}

/// A runtime config's release joins the deployment when an addon that uses it does (530003).
fn add_releases(
    manifest: &mut Manifest,
    addon: &Addon,
    runtime: &RuntimeConfig,
    stock: Stock<'_>,
) -> Result<(), TaskError> {
    for job in &addon.jobs {
        let Some(wanted) = runtime.releases.iter().find(|r| r.name == job.release) else { continue };
        let wanted = stock.release(wanted).map_or(wanted, |uploaded| &uploaded.release);
        match manifest.releases.iter().find(|r| r.release.name == wanted.name) {
            Some(known) if known.release.version == wanted.version => {}
            Some(known) => {
                return Err(TaskError::new(
                    ErrorCode::RuntimeReleaseVersionConflict,
                    format!(
                        "Runtime manifest specifies release '{}' with version as '{}'. This conflicts with version '{}' specified in the deployment manifest.",
                        wanted.name, wanted.version, known.release.version
                    ),
                ));
            }
            None => {
                manifest
                    .releases
                    .push(ManifestRelease { release: wanted.clone(), exported_from: Vec::new() });
            }
        }
    }
    Ok(())
}

fn candidate<'a>(manifest: &'a Manifest, at: usize, stock: Stock<'a>) -> Candidate<'a> {
    let group = &manifest.groups[at];
    let stemcell = manifest.stemcells.iter().find(|s| s.alias == group.stemcell);
    let record = stemcell.and_then(|s| stock.stemcells(s).ok()).and_then(|found| found.first().copied());
    Candidate {
        deployment: manifest.name.as_str(),
        group: group.name.as_str(),
        jobs: group.jobs.iter().map(|j| (j.name.as_str(), j.release.name.as_str())).collect(),
        os: record.map_or("", |s| s.os.as_str()),
        networks: group.networks.iter().map(|n| n.name.as_str()).collect(),
        azs: group.azs.iter().map(AzName::as_str).collect(),
        lifecycle: match group.lifecycle {
            Lifecycle::Service => "service",
            Lifecycle::Errand => "errand",
        },
    }
}

fn join_variables(manifest: &Manifest, runtime: &[RuntimeConfig]) -> Result<Vec<VariableSpec>, TaskError> {
    let all: Vec<VariableSpec> =
        manifest.variables.iter().chain(runtime.iter().flat_map(|r| &r.variables)).cloned().collect();
    let mut names = BTreeSet::new();
    match all.iter().find(|v| !names.insert(v.name.clone())) {
        Some(twice) => Err(TaskError::new(
            ErrorCode::DeploymentDuplicateVariableName,
            format!("Duplicate variable name '{}'", twice.name),
        )),
        None => Ok(all),
    }
}
