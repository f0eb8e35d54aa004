//! The `features` block: switches of a deployment.

use serde_json::{Map, Value};

use crate::error_code::ErrorCode;
use crate::fields::{Checked, Fields};
use crate::task::TaskError;

/// Switches; those that are absent are decided by the director's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Addresses in links and specs become DNS names.
    pub use_dns_addresses: Option<bool>,
    /// Those names are short.
    pub use_short_dns_addresses: Option<bool>,
    /// Links have group ids of their own.
    pub use_link_dns_names: Option<bool>,
    /// Instances go to a zone by chance where BOSH would take the alphabet.
    pub randomize_az_placement: bool,
    /// Variables are made anew when their options change.
    pub converge_variables: bool,
    /// Job configuration lives in memory.
    pub use_tmpfs_config: Option<bool>,
}

impl Features {
    /// Reads the block (560001, 210001).
    pub(super) fn parse(fields: &Fields<'_>) -> Checked<Self> {
        let empty = Map::new();
        let block = fields.mapping_opt("features")?.unwrap_or(&empty);
        let switch = |key: &str| match block.get(key) {
            None => Ok(None),
            Some(Value::Bool(on)) => Ok(Some(*on)),
            Some(other) => Err(TaskError::new(
                ErrorCode::FeaturesInvalidFormat,
                format!(
                    "Key '{key}' in 'features' expected to be a boolean, but received '{}'",
                    ruby_class(other)
                ),
            )),
        };
        let mut features = Self {
            use_dns_addresses: switch("use_dns_addresses")?,
            use_short_dns_addresses: switch("use_short_dns_addresses")?,
            use_link_dns_names: switch("use_link_dns_names")?,
            randomize_az_placement: switch("randomize_az_placement")?.unwrap_or(false),
            converge_variables: switch("converge_variables")?.unwrap_or(false),
            use_tmpfs_config: switch("use_tmpfs_config")?,
        };
        if features.use_link_dns_names == Some(true) {
            features.imply("use_dns_addresses", |f| &mut f.use_dns_addresses)?;
            features.imply("use_short_dns_addresses", |f| &mut f.use_short_dns_addresses)?;
        }
        Ok(features)
    }

    fn imply(&mut self, key: &str, field: fn(&mut Self) -> &mut Option<bool>) -> Checked<()> {
        let value = field(self);
        if *value == Some(false) {
            return Err(TaskError::new(
                ErrorCode::IncompatibleFeatures,
                format!("cannot enable `use_link_dns_names` when `{key}` is explicitly disabled"),
            ));
        }
        *value = Some(true);
        Ok(())
    }
}

fn ruby_class(value: &Value) -> &'static str {
    match value {
        Value::Null => "NilClass",
        Value::Bool(_) => "Boolean",
        Value::Number(n) if n.is_f64() => "Float",
        Value::Number(_) => "Integer",
        Value::String(_) => "String",
        Value::Array(_) => "Array",
        Value::Object(_) => "Hash",
    }
}
