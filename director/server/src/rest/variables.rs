//! Variables: names and versions, who uses them, and when certificates end. Never values.

use axum::Json;
use axum::extract::{Path, State};
use model::{DeploymentName, VariableName};
use schemars::JsonSchema;
use serde::Serialize;

use super::Rest;
use super::deployments::all;
use super::login::Login;
use super::outcome::{Answer, List};
use super::times;
use crate::expiry;

/// A variable of a deployment.
#[derive(JsonSchema, Serialize)]
pub(super) struct VariableRow {
    /// The name with its version: what a config server would call a value.
    id: String,
    name: String,
}

/// `variables`
pub(super) async fn variables(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
) -> List<VariableRow> {
    let (service, name) = (&rest.door.service, DeploymentName::new(name));
    let found = all!(page => service.variables(&caller, name.clone(), &page));
    let row = |(name, version, _): (VariableName, u64, String)| VariableRow {
        id: format!("{name}@{version}"),
        name: name.to_string(),
    };
    Ok(Json(found.into_iter().map(row).collect()))
}

/// Which deployments have a variable.
#[derive(JsonSchema, Serialize)]
pub(super) struct VariableUsers {
    deployments: Vec<VariableUser>,
}

/// A deployment that has a variable.
#[derive(JsonSchema, Serialize)]
struct VariableUser {
    name: String,
    /// Which version of it.
    version: String,
}

/// Which deployments were last deployed with a variable, and with which version of it.
pub(super) async fn deployed(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
) -> Answer<Json<VariableUsers>> {
    let (service, name) = (&rest.door.service, VariableName::new(name));
    let found = all!(page => service.deployments_with_variable(&caller, name.clone(), &page));
    let user = |(deployment, version): (DeploymentName, u64)| VariableUser {
        name: deployment.to_string(),
        version: version.to_string(),
    };
    Ok(Json(VariableUsers { deployments: found.into_iter().map(user).collect() }))
}

/// When a certificate ends.
#[derive(JsonSchema, Serialize)]
pub(super) struct CertificateRow {
    name: String,
    id: String,
    expiry_date: String,
    days_left: i64,
}

/// When the certificates of a deployment end, that are variables of its.
pub(super) async fn certificates(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
) -> List<CertificateRow> {
    let (service, name) = (&rest.door.service, DeploymentName::new(name));
    let found = all!(page => service.certificates(&caller, name.clone(), &page));
    let row = |variable: state::records::Variable| {
        let (name, version) = (&variable.name, variable.version);
        let ends_at = expiry::of(&*rest.door.vault, &variable)?;
        Some(CertificateRow {
            name: name.to_string(),
            id: format!("{name}@{version}"),
            expiry_date: times::written(ends_at),
            days_left: expiry::days_left(ends_at),
        })
    };
    Ok(Json(found.into_iter().filter_map(row).collect()))
}
