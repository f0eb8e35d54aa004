//! What the director is, and whether it resurrects. `/info` is the first request of every command, and the only one that
//! anybody may make.

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use service::ServiceError;

use super::Rest;
use super::content::JsonBody;
use super::login::{Login, Visitor};
use super::outcome::{Answer, IsSet, List};
use super::times;
use crate::expiry;

/// What this director is.
#[derive(JsonSchema, Serialize)]
pub(super) struct Info {
    name: String,
    uuid: String,
    version: String,
    /// Who asks, if they have logged in.
    user: Option<String>,
    cpi: &'static str,
    /// Empty: no stemcell is under a replica.
    stemcell_os: &'static str,
    /// Empty, too.
    stemcell_version: &'static str,
    user_authentication: Authentication,
    features: Features,
}

/// How to log in.
#[derive(JsonSchema, Serialize)]
#[serde(tag = "type", content = "options", rename_all = "lowercase")]
enum Authentication {
    /// With a password of the director's.
    Basic {},
    /// With a token of a UAA.
    Uaa {
        /// The first of them.
        url: String,
        /// All that are one.
        urls: Vec<String>,
    },
}

/// What this director can do, in BOSH's words.
#[derive(JsonSchema, Serialize)]
struct Features {
    config_server: Feature<Servers>,
    local_dns: Feature<Domain>,
    snapshots: Feature<()>,
}

/// Whether something is on.
#[derive(JsonSchema, Serialize)]
struct Feature<T> {
    status: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    extras: Option<T>,
}

/// Config servers.
#[derive(JsonSchema, Serialize)]
struct Servers {
    urls: Vec<String>,
}

/// A domain.
#[derive(JsonSchema, Serialize)]
struct Domain {
    domain_name: &'static str,
}

/// What there is in `/info` of what this director can do.
fn features(takes_snapshots: bool) -> Features {
    Features {
        config_server: Feature { status: false, extras: Some(Servers { urls: Vec::new() }) },
        local_dns: Feature { status: true, extras: Some(Domain { domain_name: "bosh" }) },
        snapshots: Feature { status: takes_snapshots, extras: None },
    }
}

/// Tells what this director is, and who is asking as far as that is known.
pub(super) async fn info(State(rest): State<Rest>, Visitor(visitor): Visitor) -> Answer<Json<Info>> {
    let Some(cluster) = rest.door.service.info() else { return Err(ServiceError::NoState.into()) };
    let user_authentication = match rest.door.doorkeeper.uaa() {
        Some(uaa) => {
            let urls = uaa.urls().to_vec();
            Authentication::Uaa { url: urls.first().cloned().unwrap_or_default(), urls }
        }
        None => Authentication::Basic {},
    };
    Ok(Json(Info {
        name: cluster.director_name,
        uuid: cluster.director_uuid,
        version: format!("{} (directorate)", env!("CARGO_PKG_VERSION")),
        user: visitor.map(|caller| caller.user.to_string()),
        cpi: rest.cpi,
        stemcell_os: "",
        stemcell_version: "",
        user_authentication,
        features: features(rest.door.takes_snapshots),
    }))
}

/// Whether the dead are given new VMs.
#[derive(JsonSchema, Serialize)]
pub(super) struct Resurrection {
    resurrection: bool,
}

/// Whether the dead are given new VMs.
pub(super) async fn resurrection(
    Login(caller): Login,
    State(rest): State<Rest>,
) -> Answer<Json<Resurrection>> {
    let paused = rest.door.service.resurrection_paused(&caller).await?;
    Ok(Json(Resurrection { resurrection: !paused }))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ResurrectionBody {
    resurrection_paused: bool,
}

/// `update-resurrection`
pub(super) async fn set_resurrection(
    Login(caller): Login,
    State(rest): State<Rest>,
    JsonBody(body): JsonBody<ResurrectionBody>,
) -> Answer<IsSet> {
    rest.door.service.set_resurrection(&caller, None, body.resurrection_paused).await?;
    Ok(IsSet)
}

/// When a certificate of the director's ends.
#[derive(JsonSchema, Serialize)]
pub(super) struct CertificateRow {
    certificate_path: String,
    expiry: String,
    days_left: i64,
}

/// When the certificates of the director end: of the replica that answers, and of the authority that all have theirs from.
pub(super) async fn certificates(Login(caller): Login, State(rest): State<Rest>) -> List<CertificateRow> {
    let found = rest.door.certificates(&caller).await?;
    let row = |(path, ends_at)| CertificateRow {
        certificate_path: path,
        expiry: times::written(ends_at),
        days_left: expiry::days_left(ends_at),
    };
    Ok(Json(found.into_iter().map(row).collect()))
}
