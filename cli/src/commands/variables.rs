//! Variables: names, versions, who uses them, and single values.

use proto::v1::variables_client::VariablesClient;
use proto::v1::*;
use serde_json::{Value, json};

use super::deployments::parse_json;
use super::{ALL, Context, pages};
use crate::args::{NamedVariable, ShowVariable};
use crate::call;
use crate::console::{Cell, Column, Listing, column};
use crate::error::Error;

const VARIABLES: &[Column] = &[column("Name", "name"), column("Version", "version"), column("Type", "type")];

pub(super) async fn variables(context: &mut Context<'_>) -> Result<(), Error> {
    let deployment = context.deployment()?;
    let found = pages(ALL, async |page| {
        let request = ListVariablesRequest { deployment: deployment.clone(), page: Some(page) };
        let answer = call!(context.fleet, VariablesClient.list(request)).await?;
        Ok((answer.variables, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let listing = Listing::of("variables", VARIABLES, found.rows, |variable| {
        [variable.name.into(), Cell::Number(variable.version), variable.r#type.into()]
    });
    context.console.list(&listing.as_of(found.revision))
}

pub(super) async fn variable(context: &mut Context<'_>, args: ShowVariable) -> Result<(), Error> {
    if !args.reveal {
        return Err(Error::Usage(format!(
            "`dctl variable` prints a secret; say so with --reveal (`dctl variables` lists names only): {}",
            args.name
        )));
    }
    let name = absolute(context, args.name).await?;
    let variable = call!(context.fleet, VariablesClient.get(GetVariableRequest { name })).await?;
    let value = parse_json(&variable.value_json, "the variable's value")?;
    let text = match &value {
        Value::String(text) => text.clone(),
        value => crate::document::emit(value),
    };
    let whole = json!({ "name": variable.name, "version": variable.version, "value": value });
    context.console.say(&text, &whole)
}

/// Returns a name that is absolute. Relative ones are the deployment's, by BOSH's rule for absolute ones.
async fn absolute(context: &Context<'_>, name: String) -> Result<String, Error> {
    if name.starts_with('/') {
        return Ok(name);
    }
    let deployment = context.deployment()?;
    let full = format!("/{deployment}/{name}");
    Ok(full_name(context, &deployment, &name).await?.unwrap_or(full))
}

/// Returns the absolute name of a deployment's variable: only the directors know what their part of it is called.
async fn full_name(context: &Context<'_>, deployment: &str, name: &str) -> Result<Option<String>, Error> {
    let end = format!("/{deployment}/{name}");
    let variables = pages(ALL, async |page| {
        let request = ListVariablesRequest { deployment: deployment.to_owned(), page: Some(page) };
        let answer = call!(context.fleet, VariablesClient.list(request)).await?;
        Ok((answer.variables, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    Ok(variables.rows.into_iter().map(|variable| variable.name).find(|full| full.ends_with(&end)))
}

const USES: &[Column] = &[column("Deployment", "deployment"), column("Version", "version")];

pub(super) async fn deployments_with(context: &mut Context<'_>, args: NamedVariable) -> Result<(), Error> {
    let name = absolute(context, args.name).await?;
    let found = pages(ALL, async |page| {
        let request = ListVariableDeploymentsRequest { name: name.clone(), page: Some(page) };
        let answer = call!(context.fleet, VariablesClient.list_deployments(request)).await?;
        Ok((answer.deployments, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let listing = Listing::of("deployments", USES, found.rows, |used| {
        [used.deployment.into(), Cell::Number(used.version)]
    });
    context.console.list(&listing.as_of(found.revision))
}

const CERTIFICATES: &[Column] = &[
    column("Name", "name"),
    column("Version", "version"),
    column("Expires", "expires_at"),
    column("Days left", "days_left"),
];

pub(super) async fn certificates(context: &mut Context<'_>) -> Result<(), Error> {
    let deployment = context.deployment()?;
    let found = pages(ALL, async |page| {
        let request = ListCertificatesRequest { deployment: deployment.clone(), page: Some(page) };
        let answer = call!(context.fleet, VariablesClient.list_certificates(request)).await?;
        Ok((answer.certificates, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let listing = Listing::of("certificates", CERTIFICATES, found.rows, |certificate| {
        let days = certificate.days_left;
        [
            certificate.name.into(),
            Cell::Number(certificate.version),
            Cell::Time(certificate.expires_at_unix_ms),
            Cell::Both(days.to_string(), json!(days)),
        ]
    });
    context.console.list(&listing.as_of(found.revision))
}
