//! Links, as they can be asked for: who offers and wants them, where they lead, and connecting somebody outside.

use model::dns::DnsSubject;
use model::{AzName, DeploymentName, ErrorCode, LinkId, LinkProviderId, NetworkName, RequestId};
use scheduler::{LinkQuery, LinkStatus, link_address};
use state::State;
use state::command::{Command, Outcome, Refusal};
use state::records::{Link, LinkConsumer, LinkProvider};

use super::deployments::readable;
use crate::{Caller, List, Mutation, Page, Read, Right, Service, ServiceError};

const ASK_FOR_ADDRESS: &str = "ask where a link leads";

/// Somebody outside who is to be connected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewLink {
    /// The number of what is offered.
    pub provider: String,
    /// What the consumer calls itself.
    pub consumer: String,
    /// The network in which it reaches the provider; that one's default if absent.
    pub network: Option<NetworkName>,
}

/// Which instances behind a link are asked for, as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressWish {
    /// The link's number.
    pub link: Option<String>,
    /// The deployment whose people may ask; anybody's, if absent.
    pub deployment: Option<DeploymentName>,
    /// Only those in these zones, if there are any.
    pub azs: Vec<String>,
    /// How they are to fare; `default` if absent.
    pub status: Option<String>,
}

impl Service {
    /// Lists the links that a deployment offers.
    pub async fn link_providers(
        &self,
        caller: &Caller,
        deployment: &DeploymentName,
        page: &Page,
    ) -> Result<List<LinkProvider>, ServiceError> {
        let (caller, deployment) = (caller.clone(), deployment.clone());
        self.list(Read::Linearizable, page, move |state, page| {
            named(state, &caller, &deployment)?;
            page.cut(state.link_providers(&deployment), |row| row.id)
        })
        .await
    }

    /// Lists the links that a deployment wants, those of somebody outside that are connected to it among them.
    pub async fn link_consumers(
        &self,
        caller: &Caller,
        deployment: &DeploymentName,
        page: &Page,
    ) -> Result<List<LinkConsumer>, ServiceError> {
        let (caller, deployment) = (caller.clone(), deployment.clone());
        self.list(Read::Linearizable, page, move |state, page| {
            named(state, &caller, &deployment)?;
            page.cut(state.link_consumers(&deployment), |row| row.id)
        })
        .await
    }

    /// Lists the links of a deployment's consumers.
    pub async fn links(
        &self,
        caller: &Caller,
        deployment: &DeploymentName,
        page: &Page,
    ) -> Result<List<Link>, ServiceError> {
        let (caller, deployment) = (caller.clone(), deployment.clone());
        self.list(Read::Linearizable, page, move |state, page| {
            named(state, &caller, &deployment)?;
            page.cut(state.links(&deployment).map(|link| shown(state, link)), |row| row.id)
        })
        .await
    }

    /// Fails unless the caller may connect somebody outside.
    pub fn may_create_links(&self, caller: &Caller) -> Result<(), ServiceError> {
        caller.needs(Right::TeamAdmin, "create links")
    }

    /// Connects somebody outside to a shared link. Whoever is connected to it already gets the link that there is.
    pub async fn create_link(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        new: NewLink,
    ) -> Result<Link, ServiceError> {
        self.may_create_links(caller)?;
        let outcome = match self.look_for(caller, request_id.as_ref()).await? {
            Mutation::Repeated(outcome) => outcome,
            Mutation::New(looked) => {
                let provider = offered(&State::new(&*looked.view), &new)?;
                let command =
                    Command::LinkPut { provider: provider.id, consumer: new.consumer, network: new.network };
                self.propose(caller, request_id, command).await?
            }
        };
        let Outcome::LinkStored(id) = outcome else {
            let text = format!("Invalid request: unexpected answer {outcome:?}");
            return Err(ServiceError::told(ErrorCode::LinkCreateError, text));
        };
        let looked = self.look(Read::Linearizable).await?;
        let state = State::new(&*looked.view);
        let gone = || ServiceError::told(ErrorCode::LinkNotFound, format!("Link {id} was deleted meanwhile"));
        state.link(id).map(|link| shown(&state, link)).ok_or_else(gone)
    }

    /// Takes away the link of somebody outside; with its last link that one is forgotten.
    pub async fn delete_link(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        id: &str,
    ) -> Result<(), ServiceError> {
        caller.needs(Right::TeamAdmin, "delete links")?;
        if let Mutation::Repeated(_) = self.look_for(caller, request_id.as_ref()).await? {
            return Ok(());
        }
        let unknown = || ServiceError::told(ErrorCode::LinkNotFound, format!("Invalid link id: {id}"));
        let number = id.parse().map(LinkId).map_err(|_| unknown())?;
        match self.propose(caller, request_id, Command::LinkRemove { id: number }).await {
            Ok(_) => Ok(()),
            Err(ServiceError::Refused(Refusal::NotFound { .. })) => Err(unknown()),
            Err(ServiceError::Refused(Refusal::Invalid { .. })) => {
                let text = "Error deleting link: not a external link";
                Err(ServiceError::told(ErrorCode::LinkNotExternal, text))
            }
            Err(ServiceError::Refused(other)) => {
                Err(ServiceError::told(ErrorCode::LinkDeleteError, format!("Error deleting link: {other}")))
            }
            Err(other) => Err(other),
        }
    }

    /// Fails unless the caller may ask where links lead; with a deployment, whether that one's are.
    pub async fn may_ask_for_addresses(
        &self,
        caller: &Caller,
        deployment: Option<&DeploymentName>,
    ) -> Result<(), ServiceError> {
        let Some(name) = deployment else { return caller.needs(Right::ReadOrTeam, ASK_FOR_ADDRESS) };
        caller.needs(Right::Any, ASK_FOR_ADDRESS)?;
        let looked = self.look(Read::Linearizable).await?;
        readable(&State::new(&*looked.view), caller, name, ASK_FOR_ADDRESS).map(|_| ())
    }

    /// Returns where what is behind a link is found; nothing where the manifest gives the link by hand, without an address.
    pub async fn link_address(
        &self,
        caller: &Caller,
        wish: &AddressWish,
    ) -> Result<Option<String>, ServiceError> {
        self.may_ask_for_addresses(caller, wish.deployment.as_ref()).await?;
        let Some(id) = &wish.link else {
            return Err(ServiceError::told(ErrorCode::LinkIdRequired, "Link id is required"));
        };
        let looked = self.look(Read::Linearizable).await?;
        let state = State::new(&*looked.view);
        let query = asked(&state, wish)?;
        let link = id.parse().ok().and_then(|number| state.link(LinkId(number))).ok_or_else(|| {
            ServiceError::told(ErrorCode::LinkNotFound, format!("Could not find a link with id {id}"))
        })?;
        Ok(link_address(&link.place, &query, &|subject| state.dns_number(subject))?)
    }
}

/// Refuses where no deployment is named, none that there is, or one of others.
fn named(state: &State<'_>, caller: &Caller, name: &DeploymentName) -> Result<(), ServiceError> {
    let operation = "list links";
    if name.as_str().is_empty() {
        caller.needs(Right::Read, operation)?;
        return Err(ServiceError::told(ErrorCode::DeploymentNameRequired, "Deployment name is required"));
    }
    readable(state, caller, name, operation).map(|_| ())
}

/// A link that leads to what is not offered any more has no provider.
fn shown(state: &State<'_>, link: Link) -> Link {
    let provider = link.provider.filter(|id| state.link_provider(*id).is_some());
    Link { provider, ..link }
}

/// Returns what somebody outside is to be connected to.
fn offered(state: &State<'_>, new: &NewLink) -> Result<LinkProvider, ServiceError> {
    let invalid =
        |what: &str| ServiceError::told(ErrorCode::LinkCreateError, format!("Invalid request: {what}"));
    if new.provider.is_empty() {
        return Err(invalid("`link_provider_id` must be provided"));
    }
    if new.consumer.is_empty() {
        return Err(invalid("`link_consumer.owner_object.name` must not be empty"));
    }
    let found = new.provider.parse().ok().and_then(|number| state.link_provider(LinkProviderId(number)));
    let provider = found.ok_or_else(|| {
        let text = format!("Invalid link_provider_id: {}", new.provider);
        ServiceError::told(ErrorCode::LinkProviderLookupError, text)
    })?;
    if !provider.offer.shared {
        return Err(ServiceError::told(ErrorCode::LinkProviderNotShared, "Provider not `shared`"));
    }
    match &new.network {
        Some(network) if !provider.offer.networks.contains(network) => {
            let (id, consumer) = (provider.id, &new.consumer);
            let text = format!("Can't resolve network: `{network}` in provider id: {id} for `{consumer}`");
            Err(ServiceError::told(ErrorCode::LinkNetworkLookupError, text))
        }
        _ => Ok(provider),
    }
}

fn asked(state: &State<'_>, wish: &AddressWish) -> Result<LinkQuery, ServiceError> {
    let azs: Vec<AzName> = wish.azs.iter().map(|az| AzName::new(az.as_str())).collect();
    if let Some(az) = azs.iter().find(|az| state.dns_number(&DnsSubject::Zone((*az).clone())).is_none()) {
        return Err(ServiceError::told(ErrorCode::LinkInvalidAzs, format!("az {az} is not valid")));
    }
    let Some(status) = &wish.status else { return Ok(LinkQuery { azs, ..LinkQuery::default() }) };
    let status = LinkStatus::ALL.into_iter().find(|known| known.name() == status).ok_or_else(|| {
        let text = format!("status must be a one of: {:?}", LinkStatus::ALL.map(LinkStatus::name));
        ServiceError::told(ErrorCode::LinkInvalidStatus, text)
    })?;
    Ok(LinkQuery { azs, status })
}
