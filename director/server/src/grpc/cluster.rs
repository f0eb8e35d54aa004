//! The fleet itself.

use std::collections::BTreeSet;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::{NodeId, Timestamp, UserName};
use proto::v1 as pb;
use proto::v1::cluster_server::Cluster;
use ring::digest::{SHA256, digest};
use state::records::User;
use tonic::{Request, Response, Status};

use super::{Door, request_id};
use crate::auth::hash_password;
use crate::error_map::status;
use crate::fleet::log::now;

/// Life of a join token, unless asked otherwise.
const TOKEN_TTL_SECONDS: u32 = 3600;

/// What a join token starts with.
pub const TOKEN_PREFIX: &str = "dj1";

/// Returns what of a join token is stored.
pub fn token_hash(secret: &str) -> String {
    hex::encode(digest(&SHA256, secret.as_bytes()))
}

/// Returns the fingerprint by which a token pins the fleet's authority.
pub fn authority_fingerprint(authority_pem: &str) -> String {
    let der = x509_parser::pem::parse_x509_pem(authority_pem.as_bytes()).map(|(_, pem)| pem.contents);
    URL_SAFE_NO_PAD.encode(digest(&SHA256, &der.unwrap_or_default()))
}

#[async_trait]
impl Cluster for Door {
    async fn info(&self, _request: Request<pb::InfoRequest>) -> Result<Response<pb::InfoResponse>, Status> {
        let cluster = self.service.info();
        Ok(Response::new(pb::InfoResponse {
            name: cluster.as_ref().map(|c| c.director_name.clone()).unwrap_or_default(),
            uuid: cluster.map(|c| c.director_uuid).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").into(),
        }))
    }

    async fn status(
        &self,
        request: Request<pb::ClusterStatusRequest>,
    ) -> Result<Response<pb::ClusterStatusResponse>, Status> {
        let caller = self.caller(&request).await?;
        self.service.may_see_fleet(&caller).map_err(status)?;
        // Read locally: this is what one looks at when there is no leader.
        let statuses = self.membership.statuses().await;
        let last = statuses
            .iter()
            .filter_map(|(_, s)| s.as_ref())
            .map(|s| s.last_log_index)
            .max()
            .unwrap_or_default();
        let members = statuses.into_iter().map(|(member, answered)| {
            let here = answered.as_ref();
            pb::MemberStatus {
                id: member.node.0,
                name: member.name,
                api_address: member.api_address,
                peer_address: member.peer_address,
                agent_address: member.agent_address,
                role: here.map_or("unreachable", |s| s.role.as_str()).into(),
                term: here.map_or(0, |s| s.term),
                last_log_index: here.map_or(0, |s| s.last_log_index),
                applied_index: here.map_or(0, |s| s.applied_index),
                lag: here.map_or(0, |s| last.saturating_sub(s.applied_index)),
                version: here.map_or(member.version, |s| s.version.clone()),
                snapshot_index: here.map_or(0, |s| s.snapshot_index),
                rss_bytes: here.map_or(0, |s| s.rss_bytes),
            }
        });
        Ok(Response::new(pb::ClusterStatusResponse {
            members: members.collect(),
            answered_by: self.membership.id.0,
            leader: self.membership.node.status().leader.unwrap_or_default(),
            cluster_id: self.service.info().map(|c| c.cluster_id).unwrap_or_default(),
        }))
    }

    async fn create_join_token(
        &self,
        request: Request<pb::CreateJoinTokenRequest>,
    ) -> Result<Response<pb::CreateJoinTokenResponse>, Status> {
        let caller = self.caller(&request).await?;
        self.service.may_change_fleet(&caller).map_err(status)?;
        let wish = request.into_inner();
        let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let ttl = if wish.ttl_seconds == 0 { TOKEN_TTL_SECONDS } else { wish.ttl_seconds };
        let expires_at = Timestamp(now().0 + i64::from(ttl) * 1000);
        // No idempotency key: a repeat makes another token, and the first was shown to nobody.
        self.service.put_join_token(&caller, None, token_hash(&secret), expires_at).await.map_err(status)?;
        let authority = self.service.info().map(|c| c.secrets.authority_pem).unwrap_or_default();
        let token = format!("{TOKEN_PREFIX}.{secret}.{}", authority_fingerprint(&authority));
        Ok(Response::new(pb::CreateJoinTokenResponse { token, expires_at_unix: expires_at.seconds() }))
    }

    async fn remove_member(
        &self,
        request: Request<pb::RemoveMemberRequest>,
    ) -> Result<Response<pb::RemoveMemberResponse>, Status> {
        let caller = self.caller(&request).await?;
        self.service.may_change_fleet(&caller).map_err(status)?;
        self.membership.remove(NodeId(request.into_inner().node_id)).await?;
        Ok(Response::new(pb::RemoveMemberResponse {}))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        let caller = self.caller(&request).await?;
        self.service.may_change_fleet(&caller).map_err(status)?;
        let to = Some(request.into_inner().node_id).filter(|n| *n != 0).map(NodeId);
        let leader = self.membership.transfer(to).await?;
        Ok(Response::new(pb::TransferLeaderResponse { leader: leader.0 }))
    }

    async fn put_user(
        &self,
        request: Request<pb::PutUserRequest>,
    ) -> Result<Response<pb::PutUserResponse>, Status> {
        let caller = self.caller(&request).await?;
        // Before the password is hashed: that is work, and whoever may not change users must not make us do it.
        self.service.may_change_fleet(&caller).map_err(status)?;
        let wish = request.into_inner();
        if wish.name.is_empty() || wish.password.is_empty() {
            return Err(Status::invalid_argument("a user needs a name and a password"));
        }
        let password = wish.password;
        let hash = tokio::task::spawn_blocking(move || hash_password(&password)).await;
        let user = User {
            name: UserName::new(wish.name),
            password_hash: hash.map_err(|_| Status::internal("the password could not be hashed"))?,
            scopes: wish.scopes.into_iter().collect::<BTreeSet<_>>(),
        };
        self.service.put_user(&caller, request_id(&wish.request_id), user).await.map_err(status)?;
        Ok(Response::new(pb::PutUserResponse {}))
    }

    async fn remove_user(
        &self,
        request: Request<pb::RemoveUserRequest>,
    ) -> Result<Response<pb::RemoveUserResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let name = UserName::new(wish.name);
        self.service.remove_user(&caller, request_id(&wish.request_id), name).await.map_err(status)?;
        Ok(Response::new(pb::RemoveUserResponse {}))
    }

    async fn list_users(
        &self,
        request: Request<pb::ListUsersRequest>,
    ) -> Result<Response<pb::ListUsersResponse>, Status> {
        let caller = self.caller(&request).await?;
        let users = self.service.users(&caller).await.map_err(status)?;
        let users = users
            .into_iter()
            .map(|u| pb::User { name: u.name.to_string(), scopes: u.scopes.into_iter().collect() });
        Ok(Response::new(pb::ListUsersResponse { users: users.collect() }))
    }
}
