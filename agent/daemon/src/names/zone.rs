//! Everything that is known of names: the records, and how instances fare. Pure but for the order of answers, which is drawn.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use agent_api::Fare;
use model::dns::{Record, Records};

use super::query::{NoQuery, Query, Wanted};

/// The root of names that there is in any case.
const ROOT: &str = "bosh";

/// What a name is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// These; none if those that the name stands for fare otherwise than it asks for.
    Addresses(Vec<IpAddr>),
    /// There is nothing of that name.
    Nothing,
    /// It is below a root of ours, and asks for what can't be.
    BadName,
    /// Somebody else knows.
    NotOurs,
}

/// See the module's header.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    records: Arc<Records>,
    roots: Arc<BTreeSet<String>>,
    fares: Arc<BTreeMap<String, Fare>>,
}

impl Zone {
    /// Knows these records.
    pub fn new(records: Records) -> Self {
        let mut roots: BTreeSet<String> =
            records.records.iter().map(|record| record.domain.to_ascii_lowercase()).collect();
        roots.insert(ROOT.to_owned());
        Self { records: records.into(), roots: roots.into(), fares: Arc::default() }
    }

    /// Knows how the instances of some agents fare; of others, nothing.
    pub fn with_fares(&self, fares: BTreeMap<String, Fare>) -> Self {
        Self { fares: fares.into(), ..self.clone() }
    }

    /// Returns the records.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Returns the version of the records.
    pub fn version(&self) -> u64 {
        self.records.version
    }

    /// Answers a name, in whatever case, with or without its last dot.
    pub fn find(&self, name: &str) -> Found {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if let Some(found) = self.find_alias(&name) {
            return found;
        }
        let is_below =
            |root: &&String| name.strip_suffix(root.as_str()).is_some_and(|below| below.ends_with('.'));
        // The longest root: one may lie below another.
        let root = self.roots.iter().filter(is_below).max_by_key(|root| root.len());
        let Some(root) = root else {
            return if self.roots.contains(&name) { Found::Addresses(Vec::new()) } else { Found::NotOurs };
        };
        match Query::read(&name, root) {
            Ok(query) => self.answer(&[query]),
            Err(NoQuery::NoSuchForm) => Found::Nothing,
            Err(NoQuery::BadFilters) => Found::BadName,
        }
    }

    /// Answers an alias, whatever root it has: itself, or with an instance's id where it has a place for one.
    fn find_alias(&self, name: &str) -> Option<Found> {
        let mut queries = Vec::new();
        for (alias, targets) in &self.records.aliases {
            let alias = alias.trim_end_matches('.').to_ascii_lowercase();
            for target in targets {
                let id = match (target.placeholder_type.as_deref(), alias.strip_prefix("_.")) {
                    (Some("uuid"), Some(rest)) => {
                        let first = name.strip_suffix(rest).and_then(|first| first.strip_suffix('.'));
                        let Some(id) = first.filter(|id| !id.is_empty() && !id.contains('.')) else {
                            continue;
                        };
                        Some(id)
                    }
                    (None, _) if alias == name => None,
                    _ => continue,
                };
                let Some(wanted) = Wanted::of_word(target.health_filter.as_deref()) else { continue };
                queries.push(Query::of_group(&target.group_id, &target.root_domain, id, wanted));
            }
        }
        (!queries.is_empty()).then(|| self.answer(&queries))
    }

    /// Answers with what any of the queries finds.
    fn answer(&self, queries: &[Query]) -> Found {
        let (mut addresses, mut is_known) = (BTreeSet::new(), false);
        for query in queries {
            let matching: Vec<&Record> =
                self.records.records.iter().filter(|record| query.matches(record)).collect();
            is_known |= !matching.is_empty();
            let chosen = self.choose(&matching, query.wanted);
            addresses.extend(chosen.into_iter().filter_map(|record| record.ip));
        }
        if is_known { Found::Addresses(shuffled(addresses)) } else { Found::Nothing }
    }

    fn choose<'a>(&self, matching: &[&'a Record], wanted: Wanted) -> Vec<&'a Record> {
        let that_fare = |fares: Fare| -> Vec<&'a Record> {
            matching.iter().copied().filter(|record| self.fares_of(record) == fares).collect()
        };
        match wanted {
            Wanted::All => matching.to_vec(),
            Wanted::Healthy => that_fare(Fare::Well),
            Wanted::Unhealthy => that_fare(Fare::Badly),
            Wanted::Smart => {
                let choices = [that_fare(Fare::Well), that_fare(Fare::Unknown), matching.to_vec()];
                choices.into_iter().find(|choice| !choice.is_empty()).unwrap_or_default()
            }
        }
    }

    fn fares_of(&self, record: &Record) -> Fare {
        let agent = record.agent_id.as_deref();
        agent.and_then(|agent| self.fares.get(agent)).copied().unwrap_or(Fare::Unknown)
    }
}

/// Puts answers in an order of chance: most programs take the first.
fn shuffled(addresses: BTreeSet<IpAddr>) -> Vec<IpAddr> {
    use rand::seq::SliceRandom as _;
    let mut addresses: Vec<IpAddr> = addresses.into_iter().collect();
    addresses.shuffle(&mut rand::rng());
    addresses
}

#[cfg(test)]
#[path = "zone_tests.rs"]
mod tests;
