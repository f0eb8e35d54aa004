//! Names of instances and groups in the local DNS, the long forms.

use model::fields::canonical;
use model::task::TaskError;

/// What a name is made of.
pub(crate) struct Place<'a> {
    pub(crate) group: &'a str,
    pub(crate) network: &'a str,
    pub(crate) deployment: &'a str,
    pub(crate) domain: &'a str,
}

/// Returns `<uuid>.<group>.<network>.<deployment>.<domain>`.
pub(crate) fn instance_name(id: &str, place: &Place<'_>) -> Result<String, TaskError> {
    Ok(format!("{id}.{}", suffix(place)?))
}

/// Returns the name that gives the addresses of all healthy instances of a group.
pub(crate) fn group_name(place: &Place<'_>) -> Result<String, TaskError> {
    query_name("s0", place)
}

/// Returns the name that gives the addresses of those instances of a group that the slug asks for.
pub(crate) fn query_name(slug: &str, place: &Place<'_>) -> Result<String, TaskError> {
    Ok(format!("q-{slug}.{}", suffix(place)?))
}

fn suffix(place: &Place<'_>) -> Result<String, TaskError> {
    Ok(format!(
        "{}.{}.{}.{}",
        canonical(place.group)?,
        canonical(place.network)?,
        canonical(place.deployment)?,
        place.domain
    ))
}
