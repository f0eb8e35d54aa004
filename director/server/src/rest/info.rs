//! What the director is, and whether it resurrects. `/info` is the first request of every command, and the only one that
//! anybody may make.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde::Deserialize;
use serde_json::json;
use service::ServiceError;

use super::Rest;
use super::answer::{Answer, JsonBody};
use super::login::Login;

/// Tells what this director is, and who is asking as far as that is known.
pub(super) async fn info(State(rest): State<Rest>, login: Option<Login>) -> Answer {
    let Some(cluster) = rest.door.service.info() else { return Err(ServiceError::NoState.into()) };
    let login_at = match rest.door.doorkeeper.uaa() {
        Some(uaa) => {
            let urls = uaa.urls();
            json!({ "type": "uaa", "options": { "url": urls.first(), "urls": urls } })
        }
        None => json!({ "type": "basic", "options": {} }),
    };
    Ok(Json(json!({
        "name": cluster.director_name,
        "uuid": cluster.director_uuid,
        "version": format!("{} (directorate)", env!("CARGO_PKG_VERSION")),
        "user": login.map(|Login(caller)| caller.user.to_string()),
        "cpi": rest.cpi,
        "stemcell_os": "",
        "stemcell_version": "",
        "user_authentication": login_at,
        "features": {
            "config_server": { "status": false, "extras": { "urls": [] } },
            "local_dns": { "status": false, "extras": { "domain_name": "bosh" } },
            "snapshots": { "status": rest.door.takes_snapshots },
        },
    }))
    .into_response())
}

/// Whether the dead are given new VMs.
pub(super) async fn resurrection(Login(caller): Login, State(rest): State<Rest>) -> Answer {
    let paused = rest.door.service.resurrection_paused(&caller).await?;
    Ok(Json(json!({ "resurrection": !paused })).into_response())
}

#[derive(Deserialize)]
pub(super) struct ResurrectionBody {
    resurrection_paused: bool,
}

/// `update-resurrection`
pub(super) async fn set_resurrection(
    Login(caller): Login,
    State(rest): State<Rest>,
    JsonBody(body): JsonBody<ResurrectionBody>,
) -> Answer {
    rest.door.service.set_resurrection(&caller, None, body.resurrection_paused).await?;
    Ok(StatusCode::OK.into_response())
}
