//! Links: each deploy says which there are, and what was there before keeps its number. Somebody outside is connected by
//! request, and stays so over deploys.

use std::collections::{BTreeMap, BTreeSet};

use model::link::{LinkOffer, LinkOwner, LinkOwnerKind, LinkPlace, LinkSource, LinkWant, Links};
use model::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::event::{Audit, audit};
use super::tx::{Tx, invalid};
use crate::command::{Outcome, Refusal};
use crate::key::Key;
use crate::records::{Link, LinkConsumer, LinkNumbers, LinkProvider};
use crate::table::Table;
use crate::tables::*;

/// So many links a deployment may have that were made by request.
const EXTERNAL_MAX: usize = 1000;

/// What the last deploy that went well has planned takes the place of what the one before had.
pub(super) fn save(tx: &mut Tx<'_>, deployment: &DeploymentName, planned: &Links) {
    let before = Rows::of(tx, deployment);
    let mut now = LinkNumbers::default();
    for offer in &planned.offers {
        let id = save_offer(tx, deployment, (&before.providers, &now.providers), offer);
        now.providers.push(id);
    }
    for gone in before.providers.iter().filter(|row| !now.providers.contains(&row.id)) {
        tx.delete(&LINK_PROVIDERS, &gone.id);
    }
    let mut offered = BTreeMap::from([(deployment.clone(), rows(tx, &LINK_PROVIDERS, &now.providers))]);
    for want in &planned.wants {
        let consumer = save_want(tx, deployment, (&before.consumers, &now.consumers), want);
        now.consumers.push(consumer);
        if let Some(source) = &want.source {
            let offered = offered
                .entry(source.deployment.clone())
                .or_insert_with(|| Rows::of(tx, &source.deployment).providers);
            let provider = find_provider(offered, source);
            now.links.push(connect(tx, (deployment, &before.links), (consumer, provider), (want, source)));
        }
    }
    keep_external(tx, before, &mut now);
    tx.put(&LINKS_OF, deployment, &now);
}

/// All rows of a deployment.
struct Rows {
    providers: Vec<LinkProvider>,
    consumers: Vec<LinkConsumer>,
    links: Vec<Link>,
}

impl Rows {
    fn of(tx: &Tx<'_>, deployment: &DeploymentName) -> Self {
        let numbers = tx.get(&LINKS_OF, deployment).unwrap_or_default();
        Self {
            providers: rows(tx, &LINK_PROVIDERS, &numbers.providers),
            consumers: rows(tx, &LINK_CONSUMERS, &numbers.consumers),
            links: rows(tx, &LINKS, &numbers.links),
        }
    }
}

fn rows<K: Key, V: Serialize + DeserializeOwned>(tx: &Tx<'_>, table: &Table<K, V>, ids: &[K]) -> Vec<V> {
    ids.iter().filter_map(|id| tx.get(table, id)).collect()
}

/// What was made by request stays; what else is not planned any more goes.
fn keep_external(tx: &mut Tx<'_>, before: Rows, now: &mut LinkNumbers) {
    let external: BTreeSet<LinkConsumerId> =
        before.consumers.iter().filter(|row| is_external(row)).map(|row| row.id).collect();
    for link in before.links.iter() {
        if now.links.contains(&link.id) {
            continue;
        }
        match external.contains(&link.consumer) {
            true => now.links.push(link.id),
            false => tx.delete(&LINKS, &link.id),
        }
    }
    for row in before.consumers.iter() {
        if now.consumers.contains(&row.id) {
            continue;
        }
        match external.contains(&row.id) {
            true => now.consumers.push(row.id),
            false => tx.delete(&LINK_CONSUMERS, &row.id),
        }
    }
    now.providers.sort();
    now.consumers.sort();
    now.links.sort();
}

/// Files an offer. It keeps its number where it is, and when its group moves.
fn save_offer(
    tx: &mut Tx<'_>,
    deployment: &DeploymentName,
    (known, taken): (&[LinkProvider], &[LinkProviderId]),
    offer: &LinkOffer,
) -> LinkProviderId {
    let find = |former: &[GroupName]| {
        let mut free = known.iter().filter(|row| !taken.contains(&row.id) && row.offer.name == offer.name);
        free.find(|row| offer.owner.was(&row.offer.owner, former))
    };
    let same = find(&[]).or_else(|| find(&offer.former_groups));
    let id = same.map_or_else(|| LinkProviderId(tx.next_number("link_providers")), |row| row.id);
    let row = LinkProvider { id, deployment: deployment.clone(), offer: offer.clone() };
    if same != Some(&row) {
        tx.put(&LINK_PROVIDERS, &id, &row);
    }
    id
}

/// Files who wants a link. It keeps its number where it is, and when its group moves.
fn save_want(
    tx: &mut Tx<'_>,
    deployment: &DeploymentName,
    (known, taken): (&[LinkConsumer], &[LinkConsumerId]),
    want: &LinkWant,
) -> LinkConsumerId {
    let find = |former: &[GroupName]| {
        let mut free = known.iter().filter(|row| !taken.contains(&row.id) && row.name == want.name);
        free.find(|row| want.owner.was(&row.owner, former))
    };
    let same = find(&[]).or_else(|| find(&want.former_groups));
    let id = same.map_or_else(|| LinkConsumerId(tx.next_number("link_consumers")), |row| row.id);
    let row = LinkConsumer {
        id,
        deployment: deployment.clone(),
        owner: want.owner.clone(),
        name: want.name.clone(),
        alias: want.alias.clone(),
        kind: want.kind.clone(),
        optional: want.optional,
    };
    if same != Some(&row) {
        tx.put(&LINK_CONSUMERS, &id, &row);
    }
    id
}

/// Files a link. It is the one that was there as long as both its ends are.
fn connect(
    tx: &mut Tx<'_>,
    (deployment, known): (&DeploymentName, &[Link]),
    (consumer, provider): (LinkConsumerId, Option<LinkProviderId>),
    (want, source): (&LinkWant, &LinkSource),
) -> LinkId {
    let same = known.iter().find(|row| row.consumer == consumer && row.provider == provider);
    let row = Link {
        id: same.map_or_else(|| LinkId(tx.next_number("links")), |row| row.id),
        deployment: deployment.clone(),
        name: want.name.clone(),
        consumer,
        provider,
        place: source.place.clone(),
        created_at: same.map_or(tx.at, |row| row.created_at),
    };
    if same != Some(&row) {
        tx.put(&LINKS, &row.id, &row);
    }
    row.id
}

/// Returns the number of what a link is connected to. A deployment that was last deployed before offers had numbers has
/// none.
fn find_provider(offered: &[LinkProvider], source: &LinkSource) -> Option<LinkProviderId> {
    let same = |row: &&LinkProvider| row.offer.owner == source.owner && row.offer.name == source.name;
    offered.iter().find(same).map(|row| row.id)
}

fn is_external(consumer: &LinkConsumer) -> bool {
    consumer.owner.kind == LinkOwnerKind::External
}

/// `LinkPut`. The consumer belongs to the deployment that offers the link.
pub(super) fn put(
    tx: &mut Tx<'_>,
    provider: LinkProviderId,
    consumer: &str,
    network: Option<&NetworkName>,
) -> Result<Outcome, Refusal> {
    let what = || format!("a link of '{consumer}' to provider {provider}");
    let row = tx.need(&LINK_PROVIDERS, &provider, "link provider")?;
    if consumer.is_empty() {
        return Err(invalid(what(), "the consumer has no name"));
    }
    if !row.offer.shared {
        return Err(invalid(what(), "the provider is not shared"));
    }
    if network.is_some_and(|network| !row.offer.networks.contains(network)) {
        return Err(invalid(what(), "the provider is not in that network"));
    }
    let Rows { consumers, links, .. } = Rows::of(tx, &row.deployment);
    let of_consumer = |known: &&LinkConsumer| {
        is_external(known) && known.owner.name == consumer && known.name == row.offer.name
    };
    let known = consumers.iter().find(of_consumer).map(|known| known.id);
    let place = row.offer.place.clone().in_network(network);
    let is_it =
        |link: &&Link| Some(link.consumer) == known && link.provider == Some(provider) && link.place == place;
    if let Some(same) = links.iter().find(is_it) {
        return Ok(Outcome::LinkStored(same.id));
    }
    let external: Vec<LinkConsumerId> =
        consumers.iter().filter(|row| is_external(row)).map(|row| row.id).collect();
    if links.iter().filter(|link| external.contains(&link.consumer)).count() >= EXTERNAL_MAX {
        return Err(invalid(what(), format!("the deployment has {EXTERNAL_MAX} links by request already")));
    }
    let consumer = known.unwrap_or_else(|| put_external(tx, &row, consumer));
    Ok(Outcome::LinkStored(put_link(tx, row, consumer, place)))
}

fn put_external(tx: &mut Tx<'_>, provider: &LinkProvider, name: &str) -> LinkConsumerId {
    let id = LinkConsumerId(tx.next_number("link_consumers"));
    let row = LinkConsumer {
        id,
        deployment: provider.deployment.clone(),
        owner: LinkOwner { kind: LinkOwnerKind::External, name: name.to_owned(), group: None },
        name: provider.offer.name.clone(),
        alias: provider.offer.alias.clone(),
        kind: provider.offer.kind.clone(),
        optional: false,
    };
    tx.put(&LINK_CONSUMERS, &id, &row);
    id
}

fn put_link(tx: &mut Tx<'_>, provider: LinkProvider, consumer: LinkConsumerId, place: LinkPlace) -> LinkId {
    let (id, deployment) = (LinkId(tx.next_number("links")), provider.deployment);
    let link = Link {
        id,
        deployment: deployment.clone(),
        name: provider.offer.name,
        consumer,
        provider: Some(provider.id),
        place,
        created_at: tx.at,
    };
    tx.put(&LINKS, &id, &link);
    let mut numbers = tx.get(&LINKS_OF, &deployment).unwrap_or_default();
    if !numbers.consumers.contains(&consumer) {
        numbers.consumers.push(consumer);
    }
    numbers.links.push(id);
    tx.put(&LINKS_OF, &deployment, &numbers);
    audit_link(tx, "create", id, deployment);
    id
}

/// `LinkRemove`. With its last link a consumer goes, too.
pub(super) fn remove(tx: &mut Tx<'_>, id: LinkId) -> Result<Outcome, Refusal> {
    let link = tx.need(&LINKS, &id, "link")?;
    if !tx.get(&LINK_CONSUMERS, &link.consumer).is_some_and(|row| is_external(&row)) {
        return Err(invalid(format!("removing link {id}"), "it was made by a deploy"));
    }
    let mut numbers = tx.get(&LINKS_OF, &link.deployment).unwrap_or_default();
    tx.delete(&LINKS, &id);
    numbers.links.retain(|other| *other != id);
    if !rows(tx, &LINKS, &numbers.links).iter().any(|other| other.consumer == link.consumer) {
        tx.delete(&LINK_CONSUMERS, &link.consumer);
        numbers.consumers.retain(|other| *other != link.consumer);
    }
    tx.put(&LINKS_OF, &link.deployment, &numbers);
    audit_link(tx, "delete", id, link.deployment);
    Ok(Outcome::Done)
}

fn audit_link(tx: &mut Tx<'_>, action: &str, id: LinkId, deployment: DeploymentName) {
    let (object_name, deployment) = (Some(id.to_string()), Some(deployment));
    audit(tx, Audit { action, object_type: "link", object_name, deployment, ..Audit::default() });
}

/// Forgets all links of a deployment that is gone.
pub(super) fn forget(tx: &mut Tx<'_>, deployment: &DeploymentName) {
    let numbers = tx.get(&LINKS_OF, deployment).unwrap_or_default();
    for id in &numbers.providers {
        tx.delete(&LINK_PROVIDERS, id);
    }
    for id in &numbers.consumers {
        tx.delete(&LINK_CONSUMERS, id);
    }
    for id in &numbers.links {
        tx.delete(&LINKS, id);
    }
    tx.delete(&LINKS_OF, deployment);
}
