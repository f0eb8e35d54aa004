//! Variables that a deploy has generated: absolute names, and certificates that are named after links.

use model::manifest::variable::{Strategy, VariableSpec, absolute_name};
use model::task::TaskError;
use model::*;
use serde_json::{Map, Value, json};

use crate::dns::{self, Place};
use crate::documents::Documents;
use crate::draft::{Renewal, VariableDefinition};
use crate::input::PlanInput;
use crate::links::Provider;

/// Makes the definitions, in the order in which they were written.
pub(crate) fn define(
    input: &PlanInput<'_>,
    documents: &Documents,
    providers: &[Provider],
) -> Result<Vec<VariableDefinition>, TaskError> {
    let defaults = Defaults {
        mode: if documents.manifest.features.converge_variables { "converge" } else { "no-overwrite" },
        on_stemcell_change: if has_kept_a_stemcell(input, documents) { Renewal::Later } else { Renewal::Now },
    };
    documents.variables.iter().map(|spec| define_one(input, spec, &defaults, providers)).collect()
}

/// What goes for all definitions of a deploy.
struct Defaults {
    /// The mode where a definition gives none.
    mode: &'static str,
    /// What `on-stemcell-change` comes to.
    on_stemcell_change: Renewal,
}

/// Returns whether some stemcell of the last success is used still. Nothing changes where there was no success.
fn has_kept_a_stemcell(input: &PlanInput<'_>, documents: &Documents) -> bool {
    let Some(record) = input.deployment.record else { return false };
    let now = documents.stemcells(input);
    record.stemcells.iter().any(|stemcell| now.contains(stemcell))
}

fn define_one(
    input: &PlanInput<'_>,
    spec: &VariableSpec,
    defaults: &Defaults,
    providers: &[Provider],
) -> Result<VariableDefinition, TaskError> {
    let absolute = |name: &str| absolute_name(name, &input.director.name, input.deployment.name.as_str());
    let name = absolute(&spec.name)?;
    if !input.variables.available {
        return Err(TaskError::new(
            ErrorCode::ConfigServerDisabledError,
            format!(
                "Failed to generate variable '{name}' from config server: Director is not configured with a config server"
            ),
        ));
    }
    let mut options = spec.options.clone();
    if let Some(Value::String(ca)) = options.get("ca") {
        let ca = absolute(ca)?;
        options.insert("ca".into(), Value::String(ca));
    }
    for (key, wanted) in &spec.consumes {
        consume(input, spec, key, wanted, providers, &mut options)?;
    }
    Ok(VariableDefinition {
        name: VariableName::new(name),
        kind: spec.kind.clone(),
        options: Value::Object(options),
        mode: spec.update_mode.clone().unwrap_or_else(|| defaults.mode.to_owned()),
        renewal: match spec.strategy {
            Strategy::OnDeploy => Renewal::Now,
            Strategy::OnStemcellChange => defaults.on_stemcell_change,
        },
    })
}

/// Which link a variable asks for.
pub(crate) struct Asked<'a> {
    /// By which name.
    pub(crate) from: &'a str,
    /// Of which type.
    pub(crate) kind: &'a str,
}

impl<'a> Asked<'a> {
    /// Reads one entry of a variable's `consumes`.
    pub(crate) fn of(key: &'a str, wanted: &'a Value) -> Self {
        let text = |field: &str| wanted.get(field).and_then(Value::as_str);
        let from = text("from").unwrap_or(key);
        Self { from: from.rsplit('.').next().unwrap_or(from), kind: text("link_type").unwrap_or("address") }
    }

    /// Returns the one provider that is meant.
    pub(crate) fn provider<'p>(
        &self,
        variable: &VariableSpec,
        providers: &'p [Provider],
    ) -> Result<&'p Provider, TaskError> {
        let mut candidates = providers.iter().filter(|p| p.fits(self.kind) && p.called() == self.from);
        match (candidates.next(), candidates.next()) {
            (Some(provider), None) => Ok(provider),
            _ => Err(TaskError::plain(format!(
                "Failed to resolve link '{}' with type '{}' from variable '{}': exactly one provider is needed",
                self.from, self.kind, variable.name
            ))),
        }
    }
}

/// Puts the DNS name of a link's group into a certificate's names.
fn consume(
    input: &PlanInput<'_>,
    spec: &VariableSpec,
    key: &str,
    wanted: &Value,
    providers: &[Provider],
    options: &mut Map<String, Value>,
) -> Result<(), TaskError> {
    let wildcard = wanted.pointer("/properties/wildcard").and_then(Value::as_bool).unwrap_or(false);
    let provider = Asked::of(key, wanted).provider(spec, providers)?;
    let network =
        provider.content.first().and_then(|(_, c)| c["default_network"].as_str()).unwrap_or_default();
    let place = Place {
        group: provider.group.as_str(),
        network,
        deployment: provider.deployment.as_str(),
        domain: &input.director.dns_domain,
    };
    let full = dns::group_name(&place)?;
    let address = match full.split_once('.') {
        Some((_, rest)) if wildcard => format!("*.{rest}"),
        _ => full,
    };
    match key {
        "common_name" => {
            options.entry("common_name").or_insert_with(|| Value::String(address));
        }
        "alternative_name" => {
            let names = options.entry("alternative_names").or_insert_with(|| json!([]));
            if let Value::Array(names) = names {
                names.push(Value::String(address));
            }
        }
        other => {
            return Err(TaskError::new(
                ErrorCode::VariablesInvalidFormat,
                format!("Variable '{}' consumes unknown '{other}'", spec.name),
            ));
        }
    }
    Ok(())
}
