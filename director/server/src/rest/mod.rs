//! The REST front door: what the unmodified `bosh` CLI speaks, in BOSH's paths, shapes and errors. It decides nothing:
//! JSON and YAML in, the same service functions as gRPC, JSON out.
//!
//! Every replica answers everything itself: the CLI follows redirects to the host that it was given, and to no other.
//! Invariants: no route but `/info` answers whoever has not logged in; whatever makes a task answers with `302` to it.
//!
//! Read next: [`answer`] (errors and redirects), [`repeats`] (the CLI sends again whatever got no answer), then one file
//! per noun.

mod answer;
mod artifacts;
mod cloud_check;
mod configs;
mod deployments;
mod exports;
mod history;
mod info;
mod instances;
mod leftovers;
mod links;
mod login;
mod logs;
mod repeats;
mod snapshots;
mod ssh;
mod tasks;
mod times;
mod variables;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn;
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, post, put};
use tower::ServiceExt as _;

use crate::door::Door;

/// The largest body that is read into memory: a manifest with everything that an entry of the log can hold, and more.
const BODY_BYTES_MAX: usize = 8 << 20;

/// What the handlers work with.
#[derive(Clone)]
struct Rest {
    door: Door,
    /// What `/info` says the CPI is.
    cpi: &'static str,
}

/// Returns all routes.
pub fn routes(door: Door, cpi: &'static str) -> Router {
    let all = table().into_iter().fold(Router::new(), |routes, (path, methods)| routes.route(path, methods));
    all.fallback(answer::no_such_path)
        .method_not_allowed_fallback(answer::no_such_path)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Rest { door, cpi })
}

/// Paths, and what each answers. A table, so that a test can walk it.
type Table = Vec<(&'static str, MethodRouter<Rest>)>;

fn table() -> Table {
    let mut table = vec![
        ("/info", get(info::info)),
        ("/resurrection", json(get(info::resurrection).put(info::set_resurrection))),
        ("/locks", get(history::locks)),
        ("/events", get(history::events).post(history::add)),
        ("/events/{id}", get(history::event)),
    ];
    table.extend(of_tasks());
    table.extend(of_deployments());
    table.extend(of_instances());
    table.extend(of_configs());
    table.extend(of_artifacts());
    table.extend(of_leftovers());
    table.extend(of_problems());
    table.extend(of_links());
    table
}

/// Marks a path whose content is YAML.
fn yaml(methods: MethodRouter<Rest>) -> MethodRouter<Rest> {
    methods.layer(from_fn(answer::only_yaml))
}

/// Marks a path whose content is JSON.
fn json(methods: MethodRouter<Rest>) -> MethodRouter<Rest> {
    methods.layer(from_fn(answer::only_json))
}

fn of_tasks() -> Table {
    vec![
        ("/tasks", get(tasks::list)),
        ("/tasks/cancel", json(post(tasks::cancel_many))),
        ("/tasks/{id}", get(tasks::one)),
        ("/tasks/{id}/output", get(tasks::output)),
        // Singular, as in BOSH.
        ("/task/{id}", delete(tasks::cancel)),
    ]
}

fn of_deployments() -> Table {
    vec![
        ("/deployments", yaml(get(deployments::list).post(deployments::deploy))),
        ("/deployment_configs", get(deployments::configs)),
        ("/deployments/{deployment}", get(deployments::one).delete(deployments::delete)),
        ("/deployments/{deployment}/diff", yaml(post(deployments::diff))),
        ("/deployments/{deployment}/errands", get(deployments::errands)),
        ("/deployments/{deployment}/errands/{errand}/runs", json(post(deployments::run_errand))),
        ("/deployments/{deployment}/variables", get(variables::variables)),
        ("/deployments/{deployment}/certificate_expiry", get(variables::certificates)),
        ("/deployed_variables/{name}", get(variables::deployed)),
    ]
}

fn of_instances() -> Table {
    vec![
        ("/deployments/{deployment}/instances", get(instances::instances)),
        ("/deployments/{deployment}/vms", get(instances::vms)),
        ("/deployments/{deployment}/jobs/{group}", yaml(put(instances::change_group))),
        (
            "/deployments/{deployment}/jobs/{group}/{instance}",
            yaml(put(instances::change_one).get(instances::one)),
        ),
        ("/deployments/{deployment}/instance_groups/{group}/{instance}/ignore", json(put(instances::ignore))),
        ("/deployments/{deployment}/jobs/{group}/{instance}/logs", get(logs::fetch)),
        ("/resources/{id}", get(logs::resource)),
        ("/deployments/{deployment}/ssh", json(post(ssh::ssh))),
        (
            "/deployments/{deployment}/snapshots",
            get(snapshots::list).post(snapshots::take).delete(snapshots::delete_all),
        ),
        ("/deployments/{deployment}/snapshots/{cid}", delete(snapshots::delete_one)),
        (
            "/deployments/{deployment}/jobs/{group}/{instance}/snapshots",
            get(snapshots::list_one).post(snapshots::take_one),
        ),
        ("/orphaned_vms", get(instances::orphaned_vms)),
    ]
}

fn of_configs() -> Table {
    vec![
        ("/configs", json(get(configs::list).post(configs::put).delete(configs::delete))),
        ("/configs/diff", json(post(configs::diff))),
        ("/configs/{id}", get(configs::one).delete(configs::delete_one)),
        ("/cloud_configs", yaml(get(configs::list_cloud).post(configs::put_cloud))),
        ("/cloud_configs/diff", yaml(post(configs::diff_cloud))),
        ("/runtime_configs", yaml(get(configs::list_runtime).post(configs::put_runtime))),
        ("/runtime_configs/diff", yaml(post(configs::diff_runtime))),
        ("/cpi_configs", yaml(get(configs::list_cpi).post(configs::put_cpi))),
        ("/cpi_configs/diff", yaml(post(configs::diff_cpi))),
    ]
}

fn of_artifacts() -> Table {
    vec![
        ("/releases", get(artifacts::releases).post(artifacts::upload_release)),
        (
            "/releases/{name}",
            json(get(artifacts::release).delete(artifacts::delete_release).post(exports::export)),
        ),
        ("/packages/matches", yaml(post(exports::matches))),
        ("/packages/matches_compiled", yaml(post(exports::matches_compiled))),
        ("/stemcells", get(artifacts::stemcells).post(artifacts::upload_stemcell)),
        ("/stemcells/{name}/{version}", delete(artifacts::delete_stemcell)),
        ("/stemcell_uploads", post(artifacts::is_stemcell_needed)),
    ]
}

fn of_leftovers() -> Table {
    vec![
        ("/disks", get(leftovers::disks)),
        ("/disks/{cid}", delete(leftovers::delete_disk)),
        ("/disks/{cid}/attachments", put(leftovers::attach_disk)),
        ("/vms/{cid}", delete(leftovers::delete_vm)),
        ("/orphan_disks", get(leftovers::disks)),
        ("/orphan_disks/{cid}", delete(leftovers::delete_disk)),
        ("/networks", get(leftovers::networks)),
        ("/cleanup", json(post(leftovers::clean_up))),
        ("/cleanup/dryrun", get(leftovers::preview)),
    ]
}

fn of_problems() -> Table {
    vec![
        ("/deployments/{deployment}/scans", json(post(cloud_check::scan))),
        ("/deployments/{deployment}/problems", json(get(cloud_check::problems).put(cloud_check::resolve))),
        ("/deployments/{deployment}/scan_and_fix", json(put(cloud_check::scan_and_fix))),
        (
            "/deployments/{deployment}/jobs/{group}/{instance}/resurrection",
            json(put(cloud_check::resurrection)),
        ),
        (
            "/deployments/{deployment}/instance_groups/{group}/{instance}/actions/{action}",
            yaml(post(instances::change_isolated)),
        ),
    ]
}

fn of_links() -> Table {
    vec![
        ("/link_providers", get(links::providers)),
        ("/link_consumers", get(links::consumers)),
        ("/links", json(get(links::list).post(links::create))),
        ("/links/{id}", delete(links::delete)),
        ("/link_address", get(links::address)),
    ]
}

/// Returns whether a flag of a query is on: only `true` is.
fn is_on(flag: Option<&String>) -> bool {
    flag.is_some_and(|flag| flag == "true")
}

/// Returns both doors at one port: gRPC says of itself what it is, everything else is REST.
pub fn beside(grpc: Router, rest: Router) -> Router {
    Router::new().fallback(by_protocol).with_state((grpc, rest))
}

async fn by_protocol(State((grpc, rest)): State<(Router, Router)>, request: Request) -> Response {
    let kind = request.headers().get(CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    let chosen = if kind.starts_with(b"application/grpc") { grpc } else { rest };
    match chosen.oneshot(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}

/// Returns every path.
#[cfg(test)]
pub(crate) fn paths() -> Vec<&'static str> {
    table().into_iter().map(|(path, _)| path).collect()
}

#[cfg(test)]
mod bodies_tests;
#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod links_tests;
#[cfg(test)]
mod people_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod traps_tests;
