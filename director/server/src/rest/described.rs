//! The table of all routes: paths, and for each method its handler, its name in the document, who may, and what it does. What
//! an operation takes and answers stands nowhere here: the types of its handler say it.

use aide::axum::routing::{self, ApiMethodRouter};
use aide::operation::{OperationHandler, OperationInput, OperationOutput};
use aide::transform::TransformOperation;
use axum::handler::Handler;
use axum::middleware::from_fn;

use super::{
    Rest, answer, artifacts, cloud_check, configs, deployments, dynamic_disks, exports, history, info,
    instances, leftovers, links, logs, openapi, parts, snapshots, ssh, tasks, variables,
};

/// The methods of a path.
pub(super) type Methods = ApiMethodRouter<Rest>;

/// Paths, and what each answers. A table, so that a test can walk it.
pub(super) type Table = Vec<(&'static str, Methods)>;

/// Returns all routes, by what they are about.
pub(super) fn by_noun() -> Vec<(&'static str, Table)> {
    vec![
        ("director", of_director()),
        ("tasks", of_tasks()),
        ("deployments", of_deployments()),
        ("instances", of_instances()),
        ("configs", of_configs()),
        ("typed configs", of_typed_configs()),
        ("artifacts", of_artifacts()),
        ("leftovers", of_leftovers()),
        ("dynamic disks", of_dynamic_disks()),
        ("problems", of_problems()),
        ("links", of_links()),
    ]
}

/// Returns all routes.
#[cfg(test)]
pub(super) fn table() -> Table {
    by_noun().into_iter().flat_map(|(_, routes)| routes).collect()
}

/// Marks a path whose content is YAML.
fn yaml(methods: Methods) -> Methods {
    methods.layer(from_fn(answer::only_yaml))
}

/// Marks a path whose content is JSON.
fn json(methods: Methods) -> Methods {
    methods.layer(from_fn(answer::only_json))
}

/// Makes the function of a method: a handler, the operation's name in the document, who may (see [`who`]), what it does.
macro_rules! method {
    ($method:ident, $with:ident) => {
        fn $method<H, I, O, T>(handler: H, id: &str, may: &str, summary: &str) -> Methods
        where
            H: Handler<T, Rest> + OperationHandler<I, O>,
            I: OperationInput,
            O: OperationOutput,
            T: 'static,
        {
            routing::$with(handler, |operation| said(operation, id, may, summary))
        }
    };
}

method!(get, get_with);
method!(post, post_with);
method!(put, put_with);
method!(delete, delete_with);

fn said<'t>(operation: TransformOperation<'t>, id: &str, may: &str, summary: &str) -> TransformOperation<'t> {
    operation.id(id).summary(summary).description(&who(may))
}

/// Says who may, in words. Admins of the director always may; besides them its readers (`R`), admins and readers of any team
/// (`TA`, `TR`), those of the team that owns the thing (`DA`, `DR`), who may upload (`UR`, `US`), `anybody`.
pub(super) fn who(may: &str) -> String {
    let mut names = vec!["admins of the director (`bosh.admin`)"];
    for word in may.split_whitespace() {
        names.push(match word {
            "R" => "its readers (`bosh.read`)",
            "TA" => "admins of any team (`bosh.teams.*.admin`)",
            "TR" => "readers of any team (`bosh.teams.*.read`)",
            "DA" => "admins of the team that owns it",
            "DR" => "readers of the team that owns it",
            "UR" => "whoever uploads releases (`bosh.releases.upload`)",
            "US" => "whoever uploads stemcells (`bosh.stemcells.upload`)",
            "XL" => "whoever lists dynamic disks (`bosh.dynamic-disks.list`)",
            "XC" => "whoever makes them (`bosh.dynamic-disks.create`)",
            "XA" => "whoever attaches them (`bosh.dynamic-disks.attach`)",
            "XP" => "whoever makes and attaches them (`bosh.dynamic-disks.create` and `bosh.dynamic-disks.attach`)",
            "XT" => "whoever detaches them (`bosh.dynamic-disks.detach`)",
            "XD" => "whoever deletes them (`bosh.dynamic-disks.delete`)",
            "anybody" => return "Who may: anybody.".into(),
            _ => continue,
        });
    }
    format!("Who may, as far as what is asked for allows it: {}.", names.join(", "))
}

fn of_director() -> Table {
    vec![
        ("/info", get(info::info, "info", "anybody", "Tell who answers, and how to log in")),
        (
            "/openapi.json",
            get(openapi::document, "describe", "R TA TR UR US XL XC XA XT XD", "Return this document"),
        ),
        (
            "/resurrection",
            json(
                get(info::resurrection, "resurrection", "", "Tell whether the dead are given new VMs").merge(
                    put(info::set_resurrection, "setResurrection", "", "Pause or resume resurrection"),
                ),
            ),
        ),
        (
            "/director/certificate_expiry",
            get(info::certificates, "directorCertificates", "R", "Tell when the director's certificates end"),
        ),
        ("/locks", get(history::locks, "locks", "R", "List the locks that are held")),
        (
            "/events",
            get(history::events, "events", "R TA TR", "List audit events, the newest first").merge(post(
                history::add,
                "addEvent",
                "",
                "Note an event of somebody else",
            )),
        ),
        ("/events/{id}", get(history::event, "event", "", "Show an audit event")),
    ]
}

fn of_tasks() -> Table {
    vec![
        ("/tasks", get(tasks::list, "tasks", "R TA", "List tasks, the newest first")),
        (
            "/tasks/cancel",
            json(post(tasks::cancel_many, "cancelTasks", "", "Cancel tasks by kind and state")),
        ),
        ("/tasks/{id}", get(tasks::one, "task", "R DA", "Show a task")),
        (
            "/tasks/{id}/output",
            get(tasks::output, "taskOutput", "R DA DR", "Read a task's output, from a byte on"),
        ),
        // Singular, as in BOSH.
        ("/task/{id}", delete(tasks::cancel, "cancelTask", "", "Cancel a task")),
    ]
}

fn of_deployments() -> Table {
    vec![
        (
            "/deployments",
            yaml(get(deployments::list, "deployments", "R TA", "List deployments").merge(post(
                deployments::deploy,
                "deploy",
                "TA DA",
                "Deploy a manifest",
            ))),
        ),
        (
            "/deployment_configs",
            get(deployments::configs, "deploymentConfigs", "R TA", "List the configs that deployments use"),
        ),
        (
            "/deployments/{deployment}",
            get(deployments::one, "deployment", "R DA DR", "Show what was deployed last").merge(delete(
                deployments::delete,
                "deleteDeployment",
                "DA",
                "Delete a deployment",
            )),
        ),
        (
            "/deployments/{deployment}/diff",
            yaml(post(deployments::diff, "diffDeployment", "DA", "Tell what a deploy would change")),
        ),
        (
            "/deployments/{deployment}/errands",
            get(deployments::errands, "errands", "R DA DR", "List errands"),
        ),
        (
            "/deployments/{deployment}/errands/{errand}/runs",
            json(post(deployments::run_errand, "runErrand", "DA", "Run an errand")),
        ),
        (
            "/deployments/{deployment}/variables",
            get(variables::variables, "variables", "DA", "List variables, without their values"),
        ),
        (
            "/deployments/{deployment}/certificate_expiry",
            get(variables::certificates, "certificates", "R DA DR", "Tell when certificates end"),
        ),
        (
            "/deployed_variables/{name}",
            get(variables::deployed, "deployedVariable", "R TA", "List the deployments that have a variable"),
        ),
    ]
}

fn of_instances() -> Table {
    let change_one =
        put(instances::change_one, "changeInstance", "DA", "Start, stop, restart or recreate one");
    vec![
        (
            "/deployments/{deployment}/instances",
            get(instances::instances, "instances", "R DA DR", "List instances"),
        ),
        ("/deployments/{deployment}/vms", get(instances::vms, "vms", "R DA DR", "List VMs")),
        (
            "/deployments/{deployment}/jobs/{group}",
            yaml(put(
                instances::change_group,
                "changeGroup",
                "DA",
                "Start, stop, restart or recreate a group",
            )),
        ),
        (
            "/deployments/{deployment}/jobs/{group}/{instance}",
            yaml(change_one.merge(get(instances::one, "instance", "DA", "Show an instance with its disks"))),
        ),
        (
            "/deployments/{deployment}/instance_groups/{group}/{instance}/ignore",
            json(put(instances::ignore, "ignoreInstance", "DA", "Ignore an instance, or no longer")),
        ),
        (
            "/deployments/{deployment}/jobs/{group}/{instance}/logs",
            get(logs::fetch, "fetchLogs", "DA", "Pack the logs of instances"),
        ),
        ("/resources/{id}", get(logs::resource, "resource", "", "Read what a task has left")),
        (
            "/deployments/{deployment}/ssh",
            json(post(ssh::ssh, "ssh", "DA", "Make or remove users for a session")),
        ),
        (
            "/deployments/{deployment}/snapshots",
            get(snapshots::list, "snapshots", "DA", "List snapshots")
                .merge(post(snapshots::take, "takeSnapshots", "DA", "Take snapshots of all disks"))
                .merge(delete(snapshots::delete_all, "deleteSnapshots", "DA", "Delete all snapshots")),
        ),
        (
            "/deployments/{deployment}/snapshots/{cid}",
            delete(snapshots::delete_one, "deleteSnapshot", "DA", "Delete a snapshot"),
        ),
        (
            "/deployments/{deployment}/jobs/{group}/{instance}/snapshots",
            get(snapshots::list_one, "instanceSnapshots", "DA", "List snapshots of an instance").merge(post(
                snapshots::take_one,
                "takeInstanceSnapshots",
                "DA",
                "Take snapshots of its disks",
            )),
        ),
        ("/orphaned_vms", get(instances::orphaned_vms, "orphanedVms", "", "List VMs that nothing uses")),
    ]
}

fn of_configs() -> Table {
    vec![
        (
            "/configs",
            json(
                get(configs::list, "configs", "R TA TR", "List configs")
                    .merge(post(configs::put, "putConfig", "TA DA", "Store a config"))
                    .merge(delete(configs::delete, "deleteConfigs", "DA", "Delete all versions of a config")),
            ),
        ),
        (
            "/configs/diff",
            json(post(configs::diff, "diffConfig", "R TA TR DA", "Tell what a config would change")),
        ),
        (
            "/configs/{id}",
            get(configs::one, "config", "R", "Show a version of a config").merge(delete(
                configs::delete_one,
                "deleteConfig",
                "DA",
                "Delete a version of a config",
            )),
        ),
    ]
}

fn of_typed_configs() -> Table {
    let (list, put, diff) =
        ("List cloud configs", "Store a cloud config", "Tell what a cloud config would change");
    let cloud = get(configs::list_cloud, "cloudConfigs", "R", list).merge(post(
        configs::put_cloud,
        "putCloudConfig",
        "",
        put,
    ));
    let cloud_diff = post(configs::diff_cloud, "diffCloudConfig", "", diff);
    let (list, put, diff) =
        ("List runtime configs", "Store a runtime config", "Tell what a runtime config would change");
    let runtime = get(configs::list_runtime, "runtimeConfigs", "R", list).merge(post(
        configs::put_runtime,
        "putRuntimeConfig",
        "",
        put,
    ));
    let runtime_diff = post(configs::diff_runtime, "diffRuntimeConfig", "", diff);
    let (list, put, diff) = ("List CPI configs", "Store a CPI config", "Tell what a CPI config would change");
    let cpi =
        get(configs::list_cpi, "cpiConfigs", "", list).merge(post(configs::put_cpi, "putCpiConfig", "", put));
    let cpi_diff = post(configs::diff_cpi, "diffCpiConfig", "", diff);
    vec![
        ("/cloud_configs", yaml(cloud)),
        ("/cloud_configs/diff", yaml(cloud_diff)),
        ("/runtime_configs", yaml(runtime)),
        ("/runtime_configs/diff", yaml(runtime_diff)),
        ("/cpi_configs", yaml(cpi)),
        ("/cpi_configs/diff", yaml(cpi_diff)),
    ]
}

fn of_artifacts() -> Table {
    vec![
        (
            "/releases",
            get(artifacts::releases, "releases", "R TA", "List releases").merge(post(
                artifacts::upload_release,
                "uploadRelease",
                "UR",
                "Upload a release",
            )),
        ),
        (
            "/releases/{name}",
            json(
                get(artifacts::release, "release", "R TA", "Show what is in a release")
                    .merge(delete(artifacts::delete_release, "deleteRelease", "", "Delete a release"))
                    .merge(post(
                        exports::export,
                        "exportRelease",
                        "",
                        "Export a release; `name` is `export`",
                    )),
            ),
        ),
        (
            "/packages/matches",
            yaml(post(exports::matches, "matchPackages", "", "Tell which packages need not be uploaded")),
        ),
        (
            "/packages/matches_compiled",
            yaml(post(exports::matches_compiled, "matchCompiledPackages", "", "The same of compiled ones")),
        ),
        ("/packages/blobs/{id}", get(parts::source, "packageSource", "R", "Read the source of a package")),
        ("/jobs", get(parts::jobs, "jobs", "R", "Find a job by its fingerprint")),
        (
            "/stemcells",
            get(artifacts::stemcells, "stemcells", "R TA", "List stemcells").merge(post(
                artifacts::upload_stemcell,
                "uploadStemcell",
                "US",
                "Upload a stemcell",
            )),
        ),
        (
            "/stemcells/{name}/{version}",
            delete(artifacts::delete_stemcell, "deleteStemcell", "", "Delete a stemcell"),
        ),
        (
            "/stemcell_uploads",
            post(
                artifacts::is_stemcell_needed,
                "isStemcellNeeded",
                "R TA",
                "Tell whether to upload a stemcell",
            ),
        ),
    ]
}

fn of_leftovers() -> Table {
    vec![
        ("/disks", get(leftovers::disks, "disks", "", "List orphaned disks")),
        (
            "/disks/{cid}",
            delete(leftovers::delete_disk, "deleteDisk", "", "Give a disk up, or delete an orphan"),
        ),
        ("/disks/{cid}/attachments", put(leftovers::attach_disk, "attachDisk", "", "Attach a disk")),
        ("/vms/{cid}", delete(leftovers::delete_vm, "deleteVm", "", "Delete a VM")),
        ("/orphan_disks", get(leftovers::disks, "orphanDisks", "", "List orphaned disks")),
        (
            "/orphan_disks/{cid}",
            delete(leftovers::delete_disk, "deleteOrphanDisk", "", "Delete an orphaned disk"),
        ),
        ("/networks", get(leftovers::networks, "networks", "", "List orphaned networks")),
        (
            "/networks/{name}",
            delete(leftovers::delete_network, "deleteNetwork", "", "Delete an orphaned network"),
        ),
        ("/cleanup", json(post(leftovers::clean_up, "cleanUp", "", "Delete what nothing uses"))),
        (
            "/cleanup/dryrun",
            get(leftovers::preview, "previewCleanUp", "", "Tell what a clean-up would delete"),
        ),
    ]
}

fn of_dynamic_disks() -> Table {
    let create = post(dynamic_disks::create, "createDynamicDisk", "XC", "Make a dynamic disk");
    vec![
        (
            "/dynamic_disks",
            json(
                get(dynamic_disks::list, "dynamicDisks", "XL", "List disks made by themselves").merge(create),
            ),
        ),
        (
            "/dynamic_disks/provide",
            json(post(
                dynamic_disks::provide,
                "provideDynamicDisk",
                "XP",
                "Attach a dynamic disk, and make it before if there is none of its name",
            )),
        ),
        (
            "/dynamic_disks/{name}/attach",
            json(post(dynamic_disks::attach, "attachDynamicDisk", "XA", "Attach a dynamic disk")),
        ),
        (
            "/dynamic_disks/{name}/detach",
            post(dynamic_disks::detach, "detachDynamicDisk", "XT", "Detach a dynamic disk"),
        ),
        (
            "/dynamic_disks/{name}",
            delete(dynamic_disks::delete, "deleteDynamicDisk", "XD", "Delete a dynamic disk"),
        ),
    ]
}

fn of_problems() -> Table {
    let resolve = put(cloud_check::resolve, "resolveProblems", "DA", "Do something about problems");
    let isolated = post(
        instances::change_isolated,
        "changeIsolated",
        "DA",
        "Start, stop, restart or recreate an instance, and touch nothing else",
    );
    vec![
        ("/deployments/{deployment}/scans", json(post(cloud_check::scan, "scan", "DA", "Look for problems"))),
        (
            "/deployments/{deployment}/problems",
            json(get(cloud_check::problems, "problems", "DA", "List problems").merge(resolve)),
        ),
        (
            "/deployments/{deployment}/scan_and_fix",
            json(put(
                cloud_check::scan_and_fix,
                "scanAndFix",
                "DA",
                "Give instances new VMs that are found dead",
            )),
        ),
        (
            "/deployments/{deployment}/jobs/{group}/{instance}/resurrection",
            json(put(cloud_check::resurrection, "setInstanceResurrection", "DA", "Removed, in BOSH too")),
        ),
        ("/deployments/{deployment}/instance_groups/{group}/{instance}/actions/{action}", yaml(isolated)),
    ]
}

fn of_links() -> Table {
    vec![
        ("/link_providers", get(links::providers, "linkProviders", "R DA DR", "List who offers links")),
        ("/link_consumers", get(links::consumers, "linkConsumers", "R DA DR", "List who wants links")),
        (
            "/links",
            json(get(links::list, "links", "R DA DR", "List links").merge(post(
                links::create,
                "createLink",
                "TA",
                "Connect somebody outside to a link",
            ))),
        ),
        ("/links/{id}", delete(links::delete, "deleteLink", "TA", "Disconnect somebody outside")),
        ("/link_address", get(links::address, "linkAddress", "R TA TR DA DR", "Tell where a link leads")),
    ]
}
