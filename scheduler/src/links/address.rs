//! Where somebody outside finds what is behind a link: a name that DNS answers with the instances that are asked for.

use model::dns::DnsSubject;
use model::link::LinkPlace;
use model::task::TaskError;
use model::*;

use crate::dns::{self, Place};

/// Which of the instances behind a link are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkQuery {
    /// Those in these zones; all if empty.
    pub azs: Vec<AzName>,
    /// How they fare.
    pub status: LinkStatus,
}

/// How instances fare that DNS is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkStatus {
    /// The healthy ones, or all where none is.
    #[default]
    Default,
    /// The unhealthy ones.
    Unhealthy,
    /// The healthy ones.
    Healthy,
    /// All.
    All,
}

impl LinkStatus {
    /// All there are, in the order in which they are told.
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Unhealthy, Self::All, Self::Default];

    /// Returns the word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::All => "all",
            Self::Default => "default",
        }
    }

    fn token(self) -> &'static str {
        match self {
            Self::Default => "s0",
            Self::Unhealthy => "s1",
            Self::Healthy => "s3",
            Self::All => "s4",
        }
    }
}

/// Returns the address of what is behind a link; none where the manifest gives the link by hand, and no address in it.
/// Refused if DNS has no number for what the name must tell: it gets one when it is deployed (again).
pub fn link_address(
    place: &LinkPlace,
    query: &LinkQuery,
    number: &dyn Fn(&DnsSubject) -> Option<u32>,
) -> Result<Option<String>, TaskError> {
    let (deployment, group, network, domain) = match place {
        LinkPlace::ByHand { address } => return Ok(address.clone()),
        LinkPlace::Group { deployment, group, network, domain, .. } => (deployment, group, network, domain),
    };
    let numbered = |subject: DnsSubject, what: &str| {
        number(&subject).ok_or_else(|| {
            let text = format!("{what} has no number in DNS: deploy '{deployment}' again");
            TaskError::new(ErrorCode::ResourceError, text)
        })
    };
    let mut tokens = vec![query.status.token().to_owned()];
    for az in &query.azs {
        let id = numbered(DnsSubject::Zone(az.clone()), &format!("zone '{az}'"))?;
        tokens.push(format!("a{id}"));
    }
    let LinkPlace::Group { short_names: true, link_group, .. } = place else {
        let place = Place {
            group: group.as_str(),
            network: network.as_str(),
            deployment: deployment.as_str(),
            domain,
        };
        return dns::query_name(&slug(tokens), &place).map(Some);
    };
    let id = numbered(DnsSubject::Network(network.clone()), &format!("network '{network}'"))?;
    tokens.push(format!("n{id}"));
    let subject = match link_group {
        Some(link) => DnsSubject::Link(deployment.clone(), link.clone()),
        None => DnsSubject::Group(deployment.clone(), group.clone()),
    };
    let id = numbered(subject, &format!("instance group '{group}'"))?;
    Ok(Some(format!("q-{}.q-g{id}.{domain}", slug(tokens))))
}

/// Puts together what a name asks for: sorted as text, each once.
fn slug(mut tokens: Vec<String>) -> String {
    tokens.sort();
    tokens.dedup();
    tokens.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(short_names: bool, link_group: Option<&str>) -> LinkPlace {
        LinkPlace::Group {
            deployment: "My_Dep".into(),
            group: "srv_1".into(),
            network: "Default".into(),
            domain: "bosh".into(),
            short_names,
            link_group: link_group.map(str::to_owned),
        }
    }

    fn number(subject: &DnsSubject) -> Option<u32> {
        match subject {
            DnsSubject::Zone(az) => az.as_str().strip_prefix('z')?.parse().ok(),
            DnsSubject::Network(_) => Some(2),
            DnsSubject::Group(..) => Some(3),
            DnsSubject::Instance(..) => None,
            DnsSubject::Link(_, link) => (link == "front-http").then_some(4),
        }
    }

    fn asked(place: &LinkPlace, azs: &[&str], status: LinkStatus) -> String {
        let query = LinkQuery { azs: azs.iter().map(|az| (*az).into()).collect(), status };
        match link_address(place, &query, &number) {
            Ok(address) => address.unwrap_or_else(|| "none".into()),
            Err(error) => format!("{}: {}", error.code, error.message),
        }
    }

    #[test]
    fn a_name_says_where_and_how_the_instances_are_to_be() {
        use LinkStatus::{All, Default, Healthy, Unhealthy};
        let (long, short, own) = (place(false, None), place(true, None), place(true, Some("front-http")));
        for (place, azs, status, address) in [
            (&long, &[][..], Default, "q-s0.srv-1.default.my-dep.bosh"),
            (&long, &["z1"], Healthy, "q-a1s3.srv-1.default.my-dep.bosh"),
            // As text: 10 comes before 2.
            (&long, &["z2", "z10", "z2"], Unhealthy, "q-a10a2s1.srv-1.default.my-dep.bosh"),
            (&short, &["z1"], Healthy, "q-a1n2s3.q-g3.bosh"),
            (&own, &[], All, "q-n2s4.q-g4.bosh"),
        ] {
            assert_eq!(asked(place, azs, status), address);
        }
    }

    #[test]
    fn what_has_no_number_is_told() {
        assert!(
            asked(&place(false, None), &["north"], LinkStatus::Default).starts_with("100001: zone 'north'")
        );
        let old = place(true, Some("old-http"));
        assert!(asked(&old, &[], LinkStatus::Default).contains("deploy 'My_Dep' again"));
    }

    #[test]
    fn an_address_given_by_hand_is_given_as_it_is() {
        let by_hand = |address: Option<&str>| LinkPlace::ByHand { address: address.map(str::to_owned) };
        assert_eq!(asked(&by_hand(Some("DB.example")), &["z1"], LinkStatus::All), "DB.example");
        assert_eq!(asked(&by_hand(None), &[], LinkStatus::Default), "none");
    }
}
