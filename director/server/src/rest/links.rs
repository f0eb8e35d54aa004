//! Links: no command of the CLI is about them, so they are asked for with `bosh curl`. Numbers are text here, as in BOSH.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use model::link::{LinkOwner, LinkOwnerKind};
use model::{DeploymentName, ErrorCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use service::ops::{AddressWish, NewLink};
use state::records::{Link, LinkConsumer, LinkProvider};

use super::Rest;
use super::answer::{Answer, Failure, JsonBody, told};
use super::deployments::all;
use super::login::Login;
use super::times;

/// Which deployment's links are asked for.
#[derive(Deserialize)]
pub(super) struct ListQuery {
    #[serde(default)]
    deployment: DeploymentName,
}

/// `GET /link_providers`
pub(super) async fn providers(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(ListQuery { deployment }): Query<ListQuery>,
) -> Answer {
    let service = &rest.door.service;
    let found = all!(page => service.link_providers(&caller, &deployment, &page));
    Ok(Json(found.iter().map(provider_row).collect::<Vec<_>>()).into_response())
}

/// `GET /link_consumers`
pub(super) async fn consumers(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(ListQuery { deployment }): Query<ListQuery>,
) -> Answer {
    let service = &rest.door.service;
    let found = all!(page => service.link_consumers(&caller, &deployment, &page));
    Ok(Json(found.iter().map(consumer_row).collect::<Vec<_>>()).into_response())
}

/// `GET /links`
pub(super) async fn list(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(ListQuery { deployment }): Query<ListQuery>,
) -> Answer {
    let service = &rest.door.service;
    let found = all!(page => service.links(&caller, &deployment, &page));
    Ok(Json(found.iter().map(link_row).collect::<Vec<_>>()).into_response())
}

/// `POST /links`. Whoever asks again gets the same link, so that a repeat needs no key.
pub(super) async fn create(
    Login(caller): Login,
    State(rest): State<Rest>,
    JsonBody(body): JsonBody<Value>,
) -> Answer {
    let service = &rest.door.service;
    service.may_create_links(&caller)?;
    let made = service.create_link(&caller, None, new_link(&body)?).await?;
    Ok(Json(link_row(&made)).into_response())
}

/// `DELETE /links/:id`
pub(super) async fn delete(Login(caller): Login, State(rest): State<Rest>, Path(id): Path<String>) -> Answer {
    rest.door.service.delete_link(&caller, None, &id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /link_address`
pub(super) async fn address(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(query): Query<Vec<(String, String)>>,
) -> Answer {
    let (service, (wish, has_other_azs)) = (&rest.door.service, wish(query));
    service.may_ask_for_addresses(&caller, wish.deployment.as_ref()).await?;
    if has_other_azs && wish.link.is_some() {
        return Err(told(ErrorCode::LinkInvalidAzs, "`azs` param must be array type: `azs[]=`"));
    }
    let address = service.link_address(&caller, &wish).await?;
    Ok(Json(json!({ "address": address })).into_response())
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

fn provider_row(row: &LinkProvider) -> Value {
    let (owner, mut info) = (&row.offer.owner, Map::new());
    // Only jobs are said to be in a group; the others have a blank one.
    let group = owner.group.as_ref().filter(|_| owner.kind == LinkOwnerKind::Job);
    info.insert("instance_group".into(), json!(group.map_or("", |group| group.as_str())));
    json!({
        "id": row.id.to_string(),
        "name": row.offer.alias,
        "shared": row.offer.shared,
        "deployment": row.deployment,
        "link_provider_definition": { "type": row.offer.kind, "name": row.offer.name },
        "owner_object": owner_object(owner, Some(info)),
    })
}

fn consumer_row(row: &LinkConsumer) -> Value {
    let in_group = |group| Map::from_iter([("instance_group".to_owned(), json!(group))]);
    json!({
        "id": row.id.to_string(),
        "name": row.alias,
        "optional": row.optional,
        "deployment": row.deployment,
        "owner_object": owner_object(&row.owner, row.owner.group.as_ref().map(in_group)),
        "link_consumer_definition": { "name": row.name, "type": row.kind },
    })
}

fn owner_object(owner: &LinkOwner, info: Option<Map<String, Value>>) -> Value {
    let mut object = json!({ "type": owner.kind.name(), "name": owner.name });
    if let Some(info) = info {
        object["info"] = Value::Object(info);
    }
    object
}

fn link_row(row: &Link) -> Value {
    json!({
        "id": row.id.to_string(),
        "name": row.name,
        "link_consumer_id": row.consumer.to_string(),
        "link_provider_id": row.provider.map(|id| id.to_string()),
        "created_at": times::dated(row.created_at),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_a_list_and_nothing_else() {
        let read = |query: &str| {
            let uri = format!("/link_address?{query}").parse().unwrap();
            let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&uri).unwrap();
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
