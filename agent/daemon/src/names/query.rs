//! Names that ask: which instances a name of ours stands for. Pure.
//!
//! Long forms name group, network and deployment: `<uuid>.<group>.<network>.<deployment>.<domain>` is one instance,
//! `q-<filters>.<group>.<network>.<deployment>.<domain>` those of the group that pass. Short forms name the group, or a link, by
//! its number: `q-<filters>.q-g<number>.<domain>`. Filters of one kind are alternatives, kinds are conditions that must all
//! hold.

use std::collections::BTreeSet;

use model::dns::Record;

/// Which of the instances that pass are answered with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// The healthy ones; if there are none, those of which nothing is known; else all.
    #[default]
    Smart,
    /// Those that are known to fare badly.
    Unhealthy,
    /// Those that are known to fare well.
    Healthy,
    /// All.
    All,
}

impl Wanted {
    fn of_number(number: &str) -> Option<Self> {
        match number {
            "0" => Some(Self::Smart),
            "1" => Some(Self::Unhealthy),
            "3" => Some(Self::Healthy),
            "4" => Some(Self::All),
            _ => None,
        }
    }

    /// Reads the word that aliases say.
    pub fn of_word(word: Option<&str>) -> Option<Self> {
        match word {
            None | Some("smart") => Some(Self::Smart),
            Some("unhealthy") => Some(Self::Unhealthy),
            Some("healthy") => Some(Self::Healthy),
            Some("all") => Some(Self::All),
            Some(_) => None,
        }
    }
}

/// Who is meant, before filters.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Of {
    /// By names.
    Place { group: String, network: String, deployment: String },
    /// By number.
    Group(String),
}

/// What a name asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    of: Of,
    domain: String,
    /// Only the instance with this id.
    id: Option<String>,
    azs: BTreeSet<String>,
    indexes: BTreeSet<String>,
    numbers: BTreeSet<String>,
    networks: BTreeSet<String>,
    /// How those are to fare that are answered with.
    pub wanted: Wanted,
}

/// A name below our root that asks for nothing we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoQuery {
    /// It has another form.
    NoSuchForm,
    /// Its filters can't be read.
    BadFilters,
}

impl Query {
    /// Reads a name in lower case, without its last dot, that ends in `.<domain>`.
    pub fn read(name: &str, domain: &str) -> Result<Self, NoQuery> {
        let below = name.strip_suffix(domain).and_then(|below| below.strip_suffix('.'));
        let labels: Vec<&str> = below.ok_or(NoQuery::NoSuchForm)?.split('.').collect();
        let (first, of) = match labels.as_slice() {
            [first, group] => {
                let number = group.strip_prefix("q-g").filter(|number| is_number(number));
                (*first, Of::Group(number.ok_or(NoQuery::NoSuchForm)?.to_owned()))
            }
            [first, group, network, deployment] => {
                let (group, network, deployment) =
                    ((*group).to_owned(), (*network).to_owned(), (*deployment).to_owned());
                (*first, Of::Place { group, network, deployment })
            }
            _ => return Err(NoQuery::NoSuchForm),
        };
        let mut query = Self::all(of, domain);
        match (first.strip_prefix("q-"), &query.of) {
            (Some(filters), _) => query.filter(filters)?,
            (None, Of::Place { .. }) => query.id = Some(first.to_owned()),
            (None, Of::Group(_)) => return Err(NoQuery::NoSuchForm),
        }
        Ok(query)
    }

    /// Asks for what an alias stands for, or for one instance of it.
    pub fn of_group(group: &str, domain: &str, id: Option<&str>, wanted: Wanted) -> Self {
        let id = id.map(str::to_owned);
        Self { id, wanted, ..Self::all(Of::Group(group.to_owned()), domain) }
    }

    fn all(of: Of, domain: &str) -> Self {
        let none = BTreeSet::new;
        Self {
            of,
            domain: domain.to_owned(),
            id: None,
            azs: none(),
            indexes: none(),
            numbers: none(),
            networks: none(),
            wanted: Wanted::Smart,
        }
    }

    /// Reads filters: a letter and a number each, one after the other.
    fn filter(&mut self, filters: &str) -> Result<(), NoQuery> {
        let mut rest = filters;
        while let Some(letter) = rest.chars().next() {
            rest = rest.get(1..).ok_or(NoQuery::BadFilters)?;
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, after) = rest.split_at(end);
            if number.is_empty() {
                return Err(NoQuery::BadFilters);
            }
            let set = match letter {
                'a' => Some(&mut self.azs),
                'i' => Some(&mut self.indexes),
                'm' => Some(&mut self.numbers),
                'n' => Some(&mut self.networks),
                's' => {
                    self.wanted = Wanted::of_number(number).ok_or(NoQuery::BadFilters)?;
                    None
                }
                // How the instances fare is brought here: nobody has to wait for it.
                'y' if ["0", "1"].contains(&number) => None,
                _ => return Err(NoQuery::BadFilters),
            };
            if let Some(set) = set {
                set.insert(number.to_owned());
            }
            rest = after;
        }
        Ok(())
    }

    /// Returns whether a record passes, however its instance fares.
    pub fn matches(&self, record: &Record) -> bool {
        let is_meant = match &self.of {
            Of::Group(number) => record.group_ids.contains(number),
            Of::Place { group, network, deployment } => {
                record.group == *group && record.network == *network && record.deployment == *deployment
            }
        };
        let passes = |wanted: &BTreeSet<String>, has: Option<&str>| {
            wanted.is_empty() || has.is_some_and(|has| wanted.contains(has))
        };
        is_meant
            && record.domain == self.domain
            && self.id.as_ref().is_none_or(|id| record.id == *id)
            && passes(&self.azs, record.az_id.as_deref())
            && passes(&self.indexes, Some(&record.index.to_string()))
            && passes(&self.numbers, record.num_id.as_deref())
            && passes(&self.networks, record.network_id.as_deref())
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
