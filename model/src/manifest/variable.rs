//! Variable definitions: secrets that the director has generated.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::error_code::ErrorCode;
use crate::fields::Checked;
use crate::task::TaskError;

/// One entry of `variables`.
#[derive(Clone, Debug, PartialEq)]
pub struct VariableSpec {
    /// The name as written, relative or absolute.
    pub name: String,
    /// `password`, `certificate`, `ssh`, `rsa` or whatever the store knows.
    pub kind: String,
    /// Options, as written.
    pub options: Map<String, Value>,
    /// `no-overwrite`, `overwrite` or `converge`, if given; whoever makes the value refuses others.
    pub update_mode: Option<String>,
    /// When a new version may be made.
    pub strategy: Strategy,
    /// Links that a certificate takes names from.
    pub consumes: Map<String, Value>,
}

/// When a new version of a variable may be made, and seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// At every deploy.
    #[default]
    OnDeploy,
    /// At deploys that leave no stemcell as it was.
    OnStemcellChange,
}

fn invalid(message: impl Into<String>) -> TaskError {
    TaskError::new(ErrorCode::VariablesInvalidFormat, message)
}

/// Reads `variables` (560000).
pub fn parse_all(items: &[Value]) -> Checked<Vec<VariableSpec>> {
    let (mut found, mut names) = (Vec::with_capacity(items.len()), BTreeSet::new());
    for item in items {
        let variable = parse(item)?;
        if !names.insert(variable.name.clone()) {
            return Err(invalid(format!(
                "Some of the variables have duplicate names, eg: '{}'",
                variable.name
            )));
        }
        found.push(variable);
    }
    Ok(found)
}

fn parse(item: &Value) -> Checked<VariableSpec> {
    let Some(fields) = item.as_object() else {
        return Err(invalid("At least one of the variables is not a hash"));
    };
    let text = |key: &str| match fields.get(key) {
        Some(Value::String(text)) if !text.trim().is_empty() => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let mapping = |key: &str, value: Option<&Value>| match value {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map.clone()),
        Some(_) => Err(invalid(format!("Variable's '{key}' must be a hash"))),
    };
    let name = text("name").ok_or_else(|| {
        invalid("At least one of the variables has an empty 'name'; 'name' must not be empty or nil")
    })?;
    let kind = text("type")
        .ok_or_else(|| invalid(format!("Type for variable '{name}' is missing; 'type' must be specified")))?;
    let options = mapping("options", fields.get("options"))?;
    let consumes = mapping("consumes", fields.get("consumes"))?;
    if !consumes.is_empty() && kind != "certificate" {
        return Err(invalid(format!(
            "Variable '{name}' of type '{kind}' cannot use 'consumes'; only certificates can"
        )));
    }
    let update = mapping("update", fields.get("update"))?;
    let strategy = match update.get("strategy").and_then(Value::as_str).unwrap_or("on-deploy") {
        "on-deploy" => Strategy::OnDeploy,
        "on-stemcell-change" => Strategy::OnStemcellChange,
        other => {
            return Err(invalid(format!(
                "Invalid strategy: {other}. Strategy must be one of [\"on-deploy\", \"on-stemcell-change\"]"
            )));
        }
    };
    Ok(VariableSpec { name, kind, options, update_mode: text("update_mode"), strategy, consumes })
}

/// Checks a variable's name (540004) and makes it absolute: `x` is `/<director>/<deployment>/x`.
pub fn absolute_name(name: &str, director: &str, deployment: &str) -> Checked<String> {
    let fault = match () {
        () if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'/')) => {
            "only contain alphanumeric, underscores, dashes, or forward slash characters"
        }
        () if name.ends_with('/') => "not end with a forward slash",
        () if name.contains("//") => "not contain two consecutive forward slashes",
        () if name.starts_with('/') => return Ok(name.to_owned()),
        () => return Ok(format!("/{director}/{deployment}/{name}")),
    };
    Err(TaskError::new(
        ErrorCode::ConfigServerIncorrectNameSyntax,
        format!("Variable name '{name}' must {fault}"),
    ))
}
