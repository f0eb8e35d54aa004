//! Variables: names and versions, who uses them, and when certificates end. Never values.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use model::{DeploymentName, VariableName};
use serde_json::{Value, json};

use super::Rest;
use super::answer::Answer;
use super::deployments::all;
use super::login::Login;
use super::times;
use crate::expiry;

/// `variables`
pub(super) async fn variables(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
) -> Answer {
    let (service, name) = (&rest.door.service, DeploymentName::new(name));
    let found = all!(page => service.variables(&caller, name.clone(), &page));
    // The id is the name with its version: what a config server would call a value.
    let row = |(name, version, _): (model::VariableName, u64, String)| json!({ "id": format!("{name}@{version}"), "name": name });
    Ok(Json(found.into_iter().map(row).collect::<Vec<_>>()).into_response())
}

/// Which deployments were last deployed with a variable, and with which version of it.
pub(super) async fn deployed(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
) -> Answer {
    let (service, name) = (&rest.door.service, VariableName::new(name));
    let found = all!(page => service.deployments_with_variable(&caller, name.clone(), &page));
    let row = |(deployment, version): (DeploymentName, u64)| json!({ "name": deployment, "version": version.to_string() });
    Ok(Json(json!({ "deployments": found.into_iter().map(row).collect::<Vec<Value>>() })).into_response())
}

/// When the certificates of a deployment end, that are variables of its.
pub(super) async fn certificates(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
) -> Answer {
    let (service, name) = (&rest.door.service, DeploymentName::new(name));
    let found = all!(page => service.certificates(&caller, name.clone(), &page));
    let row = |variable: state::records::Variable| {
        let (name, version) = (&variable.name, variable.version);
        let ends_at = expiry::of(&*rest.door.vault, &variable)?;
        Some(json!({
            "name": name,
            "id": format!("{name}@{version}"),
            "expiry_date": times::written(ends_at),
            "days_left": expiry::days_left(ends_at),
        }))
    };
    Ok(Json(found.into_iter().filter_map(row).collect::<Vec<Value>>()).into_response())
}
