//! Links: no command of the CLI is about them, so they are asked for with `bosh curl`. Numbers are text here, as in BOSH.

use std::borrow::Cow;

use axum::Json;
use axum::extract::{Path, State};
use model::link::{LinkOwner, LinkOwnerKind};
use model::{DeploymentName, ErrorCode};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use service::ops::{AddressWish, NewLink};
use state::records::{Link, LinkConsumer, LinkProvider};

use super::Rest;
use super::answer::{Failure, told};
use super::content::{Pairs, Query, Unread};
use super::deployments::all;
use super::login::Login;
use super::outcome::{Answer, Done, List};
use super::times;

/// Which deployment's links are asked for.
#[derive(Deserialize, JsonSchema)]
pub(super) struct ListQuery {
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    deployment: DeploymentName,
}

/// `GET /link_providers`
pub(super) async fn providers(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(ListQuery { deployment }): Query<ListQuery>,
) -> List<ProviderRow> {
    let service = &rest.door.service;
    let found = all!(page => service.link_providers(&caller, &deployment, &page));
    Ok(Json(found.iter().map(ProviderRow::from).collect()))
}

/// `GET /link_consumers`
pub(super) async fn consumers(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(ListQuery { deployment }): Query<ListQuery>,
) -> List<ConsumerRow> {
    let service = &rest.door.service;
    let found = all!(page => service.link_consumers(&caller, &deployment, &page));
    Ok(Json(found.iter().map(ConsumerRow::from).collect()))
}

/// `GET /links`
pub(super) async fn list(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(ListQuery { deployment }): Query<ListQuery>,
) -> List<LinkRow> {
    let service = &rest.door.service;
    let found = all!(page => service.links(&caller, &deployment, &page));
    Ok(Json(found.iter().map(LinkRow::from).collect()))
}

/// Who is to be connected to what; `LinkCreation` says what is read of it.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct LinkBody(Map<String, Value>);

impl JsonSchema for LinkBody {
    fn schema_name() -> Cow<'static, str> {
        LinkCreation::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        LinkCreation::json_schema(generator)
    }
}

/// Who is to be connected to what.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "for its description alone: what is missing is told in BOSH's order and words")]
struct LinkCreation {
    link_provider_id: String,
    link_consumer: ExternalConsumer,
    network: Option<String>,
}

/// Somebody outside.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "for its description alone")]
struct ExternalConsumer {
    owner_object: ExternalOwner,
}

/// Who that is.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "for its description alone")]
struct ExternalOwner {
    /// `external`
    r#type: String,
    name: String,
}

/// `POST /links`. Whoever asks again gets the same link, so that a repeat needs no key.
pub(super) async fn create(
    Login(caller): Login,
    State(rest): State<Rest>,
    body: Unread<LinkBody>,
) -> Answer<Json<LinkRow>> {
    let service = &rest.door.service;
    service.may_create_links(&caller)?;
    let body = body.read()?;
    let made = service.create_link(&caller, None, new_link(&Value::Object(body.0))?).await?;
    Ok(Json(LinkRow::from(&made)))
}

/// `DELETE /links/:id`
pub(super) async fn delete(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(id): Path<String>,
) -> Answer<Done> {
    rest.door.service.delete_link(&caller, None, &id).await?;
    Ok(Done)
}

/// `GET /link_address`
pub(super) async fn address(
    Login(caller): Login,
    State(rest): State<Rest>,
    query: Pairs<AddressQuery>,
) -> Answer<Json<AddressAnswer>> {
    let (service, (wish, has_other_azs)) = (&rest.door.service, wish(query.pairs));
    service.may_ask_for_addresses(&caller, wish.deployment.as_ref()).await?;
    if has_other_azs && wish.link.is_some() {
        return Err(told(ErrorCode::LinkInvalidAzs, "`azs` param must be array type: `azs[]=`"));
    }
    let address = service.link_address(&caller, &wish).await?;
    Ok(Json(AddressAnswer { address }))
}

/// What can be asked for an address of.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "for its description alone")]
pub(super) struct AddressQuery {
    link_id: Option<String>,
    deployment: Option<String>,
    /// Only instances in these zones.
    #[serde(rename = "azs[]", default)]
    azs: Vec<String>,
    /// `healthy`, `unhealthy`, `all` or `default`.
    status: Option<String>,
}

/// Reads what is asked for an address of, and whether zones are asked for otherwise than as a list (`azs[]`).
fn wish(query: Vec<(String, String)>) -> (AddressWish, bool) {
    let (mut wish, mut has_other_azs) = (AddressWish::default(), false);
    for (name, value) in query {
        match &*name {
            "link_id" => wish.link = Some(value),
            "deployment" => wish.deployment = Some(value.into()),
            "azs[]" => wish.azs.push(value),
            "status" => wish.status = Some(value),
            other => has_other_azs |= other == "azs" || other.starts_with("azs["),
        }
    }
    (wish, has_other_azs)
}

/// Reads who is to be connected to what. What is missing is told one by one, in the order in which BOSH looks for it.
fn new_link(body: &Value) -> Result<NewLink, Failure> {
    let invalid = |what: &str| told(ErrorCode::LinkCreateError, format!("Invalid request: {what}"));
    let provider = match &body["link_provider_id"] {
        Value::Null => return Err(invalid("`link_provider_id` must be provided")),
        Value::String(id) if id.is_empty() => return Err(invalid("`link_provider_id` must be provided")),
        Value::String(id) => id.clone(),
        _ => return Err(invalid("`link_provider_id` must be a String")),
    };
    let consumer = &body["link_consumer"];
    if consumer.is_null() {
        return Err(invalid("`link_consumer` section must be defined"));
    }
    let owner = &consumer["owner_object"];
    if owner.is_null() {
        return Err(invalid("`link_consumer.owner_object` section must be defined"));
    }
    if owner["type"] != LinkOwnerKind::External.name() {
        return Err(invalid("`link_consumer.owner_object.type` should be 'external'"));
    }
    let network = match &body["network"] {
        Value::Null => None,
        Value::String(network) => Some(network.as_str().into()),
        _ => return Err(invalid("`network` must be a String")),
    };
    let consumer = owner["name"].as_str().unwrap_or_default().to_owned();
    Ok(NewLink { provider, consumer, network })
}

/// Who offers a link.
#[derive(JsonSchema, Serialize)]
pub(super) struct ProviderRow {
    id: String,
    /// What others call it by.
    name: String,
    shared: bool,
    deployment: String,
    link_provider_definition: Definition,
    owner_object: OwnerObject,
}

/// Who wants a link.
#[derive(JsonSchema, Serialize)]
pub(super) struct ConsumerRow {
    id: String,
    name: String,
    optional: bool,
    deployment: String,
    owner_object: OwnerObject,
    link_consumer_definition: Definition,
}

/// A link, as its job's spec has it.
#[derive(JsonSchema, Serialize)]
struct Definition {
    r#type: String,
    name: String,
}

/// What a link belongs to.
#[derive(JsonSchema, Serialize)]
struct OwnerObject {
    /// `job`, `disk`, `manual`, `variable` or `external`.
    r#type: &'static str,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<OwnerInfo>,
}

/// Where it is.
#[derive(JsonSchema, Serialize)]
struct OwnerInfo {
    /// Only jobs are said to be in a group; the others have a blank one.
    instance_group: String,
}

/// A link between two.
#[derive(JsonSchema, Serialize)]
pub(super) struct LinkRow {
    id: String,
    name: String,
    link_consumer_id: String,
    link_provider_id: Option<String>,
    created_at: String,
}

/// Where a link leads.
#[derive(JsonSchema, Serialize)]
pub(super) struct AddressAnswer {
    /// Null where a manual link has none.
    address: Option<String>,
}

impl From<&LinkProvider> for ProviderRow {
    fn from(row: &LinkProvider) -> Self {
        let owner = &row.offer.owner;
        let group = owner.group.as_ref().filter(|_| owner.kind == LinkOwnerKind::Job);
        let info = OwnerInfo { instance_group: group.map(ToString::to_string).unwrap_or_default() };
        Self {
            id: row.id.to_string(),
            name: row.offer.alias.to_string(),
            shared: row.offer.shared,
            deployment: row.deployment.to_string(),
            link_provider_definition: Definition {
                r#type: row.offer.kind.to_string(),
                name: row.offer.name.to_string(),
            },
            owner_object: owner_object(owner, Some(info)),
        }
    }
}

impl From<&LinkConsumer> for ConsumerRow {
    fn from(row: &LinkConsumer) -> Self {
        let info = row.owner.group.as_ref().map(|group| OwnerInfo { instance_group: group.to_string() });
        Self {
            id: row.id.to_string(),
            name: row.alias.to_string(),
            optional: row.optional,
            deployment: row.deployment.to_string(),
            owner_object: owner_object(&row.owner, info),
            link_consumer_definition: Definition { r#type: row.kind.to_string(), name: row.name.to_string() },
        }
    }
}

fn owner_object(owner: &LinkOwner, info: Option<OwnerInfo>) -> OwnerObject {
    OwnerObject { r#type: owner.kind.name(), name: owner.name.to_string(), info }
}

impl From<&Link> for LinkRow {
    fn from(row: &Link) -> Self {
        Self {
            id: row.id.to_string(),
            name: row.name.to_string(),
            link_consumer_id: row.consumer.to_string(),
            link_provider_id: row.provider.map(|id| id.to_string()),
            created_at: times::dated(row.created_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn zones_are_a_list_and_nothing_else() {
        let read = |query: &str| {
            let uri = format!("/link_address?{query}").parse().unwrap();
            let axum::extract::Query(pairs) = axum::extract::Query::try_from_uri(&uri).unwrap();
            wish(pairs)
        };
        let (plain, has_other_azs) = read("link_id=2&azs%5B%5D=z1&azs[]=z2&status=all&deployment=d");
        let wanted = AddressWish {
            link: Some("2".into()),
            deployment: Some("d".into()),
            azs: vec!["z1".into(), "z2".into()],
            status: Some("all".into()),
        };
        assert_eq!((plain, has_other_azs), (wanted, false));
        for query in ["azs=z1", "azs[0]=z1", "azs[]=z2&azs=z1"] {
            assert!(read(query).1, "{query}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_request_is_told_in_its_turn() {
        let external = json!({ "type": "external", "name": "x" });
        for (body, told) in [
            (json!({}), "`link_provider_id` must be provided"),
            (json!([]), "`link_provider_id` must be provided"),
            (json!({"link_provider_id": ""}), "`link_provider_id` must be provided"),
            (json!({"link_provider_id": 1}), "`link_provider_id` must be a String"),
            (json!({"link_provider_id": "1"}), "`link_consumer` section must be defined"),
            (
                json!({"link_provider_id": "1", "link_consumer": {}}),
                "`link_consumer.owner_object` section must be defined",
            ),
            (
                json!({"link_provider_id": "1", "link_consumer": {"owner_object": {"type": "job"}}}),
                "`link_consumer.owner_object.type` should be 'external'",
            ),
            (
                json!({"link_provider_id": "1", "link_consumer": {"owner_object": external}, "network": 1}),
                "`network` must be a String",
            ),
        ] {
            let failure = format!("{:?}", new_link(&body).unwrap_err());
            assert!(failure.contains(told) && failure.contains("810001"), "{body}: {failure}");
        }
        let whole =
            json!({"link_provider_id": "1", "link_consumer": {"owner_object": external}, "network": "n"});
        let new = NewLink { provider: "1".into(), consumer: "x".into(), network: Some("n".into()) };
        assert_eq!(new_link(&whole).unwrap(), new);
    }
}
