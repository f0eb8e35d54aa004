//! Options of a definition, read one by one; those that nobody has read are refused by name.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use model::ErrorCode;
use model::task::TaskError;
use scheduler::VariableDefinition;
use serde_json::Value;

pub(super) struct Options<'a> {
    definition: &'a VariableDefinition,
    known: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Options<'a> {
    pub(super) fn of(definition: &'a VariableDefinition) -> Self {
        Self { definition, known: RefCell::default() }
    }

    /// Returns the refusal of an option.
    pub(super) fn refuse(&self, key: &str, why: &str) -> TaskError {
        TaskError::new(
            ErrorCode::ConfigServerGenerationError,
            format!(
                "variable '{}' of type '{}': option '{key}' {why}",
                self.definition.name, self.definition.kind
            ),
        )
    }

    /// Refuses what was given and not asked for.
    pub(super) fn refuse_others(&self) -> Result<(), TaskError> {
        let known = self.known.borrow();
        let given = self.definition.options.as_object().into_iter().flat_map(|map| map.keys());
        match given.into_iter().find(|key| !known.contains(key.as_str())) {
            Some(other) => {
                let known: Vec<&str> = known.iter().copied().collect();
                Err(self.refuse(other, &format!("is not known (those that are: {})", known.join(", "))))
            }
            None => Ok(()),
        }
    }

    fn given(&self, key: &'static str) -> Option<&'a Value> {
        self.known.borrow_mut().insert(key);
        self.definition.options.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, key: &'static str) -> Result<Option<&'a str>, TaskError> {
        match self.given(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.refuse(key, "must be a text")),
        }
    }

    pub(super) fn flag(&self, key: &'static str) -> Result<bool, TaskError> {
        match self.given(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.refuse(key, "must be true or false")),
        }
    }

    /// Reads a list of texts; one text alone counts as a list of it.
    pub(super) fn texts(&self, key: &'static str) -> Result<Vec<&'a str>, TaskError> {
        let wrong = || self.refuse(key, "must be a list of texts");
        match self.given(key) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text]),
            Some(Value::Array(items)) => {
                items.iter().map(Value::as_str).collect::<Option<_>>().ok_or_else(wrong)
            }
            Some(_) => Err(wrong()),
        }
    }

    pub(super) fn number(
        &self,
        key: &'static str,
        default: u64,
        allowed: RangeInclusive<u64>,
    ) -> Result<u64, TaskError> {
        let Some(value) = self.given(key) else { return Ok(default) };
        value.as_u64().filter(|number| allowed.contains(number)).ok_or_else(|| {
            self.refuse(key, &format!("must be a number from {} to {}", allowed.start(), allowed.end()))
        })
    }

    /// Reads one of a few numbers; the first one is the default.
    pub(super) fn one_of(&self, key: &'static str, allowed: &[u64]) -> Result<u64, TaskError> {
        let Some(value) = self.given(key) else { return Ok(allowed[0]) };
        value.as_u64().filter(|number| allowed.contains(number)).ok_or_else(|| {
            let texts: Vec<String> = allowed.iter().map(u64::to_string).collect();
            self.refuse(key, &format!("must be one of {}", texts.join(", ")))
        })
    }
}
