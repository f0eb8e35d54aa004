//! Operators' users on machines.

use axum::extract::{Path, State};
use axum::http::request::Parts;
use model::task::{SshCommand, SshTarget};
use model::{DeploymentName, ErrorCode};
use schemars::JsonSchema;
use serde::Deserialize;
use service::Access;

use super::Rest;
use super::answer::told;
use super::content::Unread;
use super::login::Login;
use super::outcome::{Answer, SeeTask};
use super::repeats;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Wish {
    /// `setup` or `cleanup`.
    command: Option<String>,
    #[serde(default)]
    params: Params,
    #[serde(default)]
    target: Target,
}

#[derive(Default, Deserialize, JsonSchema)]
struct Params {
    user: Option<String>,
    public_key: Option<String>,
    user_regex: Option<String>,
}

#[derive(Default, Deserialize, JsonSchema)]
struct Target {
    job: Option<String>,
    #[serde(default)]
    ids: Vec<IdOrIndex>,
    #[serde(default)]
    indexes: Vec<IdOrIndex>,
}

/// The CLI sends text; numbers were always taken, too.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum IdOrIndex {
    Text(String),
    Number(u32),
}

impl From<IdOrIndex> for String {
    fn from(given: IdOrIndex) -> Self {
        match given {
            IdOrIndex::Text(text) => text,
            IdOrIndex::Number(number) => number.to_string(),
        }
    }
}

/// `ssh`, `scp`, `logs -f`: before a session and after it.
pub(super) async fn ssh(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    parts: Parts,
    body: Unread<Wish>,
) -> Answer<SeeTask> {
    // Whether they may is told before what is wrong with the body.
    let (service, name) = (&rest.door.service, DeploymentName::new(name));
    service.may_access_deployment(&caller, &name, Access::Admin).await?;
    let Wish { command, params, target } = body.read()?;
    let missing = |what: &str| told(ErrorCode::BadRequest, format!("`params` lacks `{what}`"));
    let command = match command.as_deref() {
        Some("setup") => SshCommand::Setup {
            user: params.user.ok_or_else(|| missing("user"))?,
            public_key: params.public_key.ok_or_else(|| missing("public_key"))?,
        },
        Some("cleanup") => {
            SshCommand::Cleanup { user_regex: params.user_regex.ok_or_else(|| missing("user_regex"))? }
        }
        _ => return Err(told(ErrorCode::BadRequest, "say `command`: setup or cleanup")),
    };
    let all = |named: Vec<IdOrIndex>| named.into_iter().map(String::from).collect();
    let target = SshTarget {
        group: target.job.filter(|group| !group.is_empty()).map(Into::into),
        ids: all(target.ids),
        indexes: all(target.indexes),
    };
    let key = repeats::key(service, &caller, &parts, &body.bytes).await?;
    let task = service.ssh(&caller, Some(key), &name, command, target).await?;
    Ok(SeeTask(task))
}
