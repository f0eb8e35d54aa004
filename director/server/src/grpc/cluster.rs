//! The fleet itself.

use std::collections::BTreeSet;
use std::pin::Pin;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::{Stream, StreamExt as _};
use model::{NodeId, Timestamp, UserName};
use owned_tasks::OnExit;
use proto::v1 as pb;
use proto::v1::cluster_server::Cluster;
use ring::digest::{SHA256, digest};
use service::ops::NewToken;
use service::{List, scoped};
use state::records::{User, UserToken};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::convert::page;
use super::request_id;
use crate::auth::hash_password;
use crate::door::Door;
use crate::error_map::{bad_request, internal, status};
use crate::expiry;
use crate::fleet::backup::Sending;
use crate::fleet::leaving::Removal;
use crate::fleet::log::now;
use crate::secrets::{Mint, hash_of_secret};

/// Life of a join token, unless asked otherwise.
const TOKEN_TTL_SECONDS: u32 = 3600;

/// Life of a user's token, unless asked otherwise: 90 days.
const USER_TOKEN_TTL_SECONDS: u32 = 90 * 24 * 3600;

/// What a join token starts with.
pub const TOKEN_PREFIX: &str = "dj1";

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
            // What only the replica itself knows is left out while it does not answer.
            let here = answered.as_ref();
            pb::MemberStatus {
                id: member.node.0,
                name: member.name,
                api_address: member.api_address,
                peer_address: member.peer_address,
                agent_address: member.agent_address,
                role: here.map_or("unreachable", |s| s.role.as_str()).into(),
                term: here.map(|s| s.term),
                last_log_index: here.map(|s| s.last_log_index),
                applied_index: here.map(|s| s.applied_index),
                lag: here.map(|s| last.saturating_sub(s.applied_index)),
                version: here.map_or(member.version, |s| s.version.clone()),
                snapshot_index: here.map(|s| s.snapshot_index),
                rss_bytes: here.map(|s| s.rss_bytes),
                room: here.map(|s| s.room.clone()),
            }
        });
        Ok(Response::new(pb::ClusterStatusResponse {
            members: members.collect(),
            answered_by: self.membership.id.0,
            leader: self.membership.node.status().leader.unwrap_or_default(),
            cluster_id: self.service.info().map(|c| c.cluster_id).unwrap_or_default(),
        }))
    }

    async fn list_certificates(
        &self,
        request: Request<pb::ListFleetCertificatesRequest>,
    ) -> Result<Response<pb::ListFleetCertificatesResponse>, Status> {
        let caller = self.caller(&request).await?;
        let row = |(name, ends_at): (String, Timestamp)| pb::FleetCertificate {
            name,
            expires_at_unix_ms: ends_at.0,
            days_left: expiry::days_left(ends_at),
        };
        let certificates = self.certificates(&caller).await.map_err(status)?.into_iter().map(row).collect();
        Ok(Response::new(pb::ListFleetCertificatesResponse { certificates }))
    }

    async fn probe_clouds(
        &self,
        request: Request<pb::ProbeCloudsRequest>,
    ) -> Result<Response<pb::ProbeCloudsResponse>, Status> {
        let caller = self.caller(&request).await?;
        // Programs are started for it, with the clouds' credentials: not for everybody who may look.
        self.service.may_change_fleet(&caller).map_err(status)?;
        let replicas = self.membership.probe_clouds().await.into_iter().map(|(member, probes)| {
            let (answered, probes) = (probes.is_some(), probes.unwrap_or_default());
            pb::ReplicaClouds { node_id: member.node.0, name: member.name, answered, probes }
        });
        Ok(Response::new(pb::ProbeCloudsResponse { replicas: replicas.collect() }))
    }

    async fn create_join_token(
        &self,
        request: Request<pb::CreateJoinTokenRequest>,
    ) -> Result<Response<pb::CreateJoinTokenResponse>, Status> {
        let caller = self.caller(&request).await?;
        self.service.may_change_fleet(&caller).map_err(status)?;
        let wish = request.into_inner();
        let id = request_id(&wish.request_id);
        let secret = Mint::new(&self.kek).join_secret(&caller.user, id.as_ref());
        let ttl = if wish.ttl_seconds == 0 { TOKEN_TTL_SECONDS } else { wish.ttl_seconds };
        let expires_at = Timestamp(now().0 + i64::from(ttl) * 1000);
        let token = self.service.put_join_token(&caller, id, hash_of_secret(&secret), expires_at).await;
        let expires_at = token.map_err(status)?.expires_at;
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
        let wish = request.into_inner();
        let removal = Removal {
            node: NodeId(wish.node_id),
            request_id: request_id(&wish.request_id).map(|id| scoped(&caller, &id)),
            user: caller.user,
        };
        self.membership.remove(removal).await?;
        Ok(Response::new(pb::RemoveMemberResponse {}))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        let caller = self.caller(&request).await?;
        self.service.may_change_fleet(&caller).map_err(status)?;
        let wish = request.into_inner();
        let (id, to) = (request_id(&wish.request_id), Some(wish.node_id).filter(|n| *n != 0).map(NodeId));
        let done_before = self.service.was_handed_over(&caller, id.as_ref()).await.map_err(status)?;
        let leader = match done_before {
            true => self.membership.leader().await?,
            false => {
                let leader = self.membership.transfer(to).await?;
                self.service.note_hand_over(&caller, id, leader).await.map_err(status)?;
                leader
            }
        };
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
            return Err(bad_request("a user needs a name and a password"));
        }
        let password = wish.password;
        let hash = tokio::task::spawn_blocking(move || hash_password(&password)).await;
        let user = User {
            name: UserName::new(wish.name),
            password_hash: hash.map_err(|_| internal("the password could not be hashed"))?,
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
        let listed = self.service.users(&caller, &page(request.into_inner().page)).await;
        let List { rows, next_page_token, revision } = listed.map_err(status)?;
        let user = |u: User| pb::User { name: u.name.to_string(), scopes: u.scopes.into_iter().collect() };
        Ok(Response::new(pb::ListUsersResponse {
            users: rows.into_iter().map(user).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }

    async fn create_user_token(
        &self,
        request: Request<pb::CreateUserTokenRequest>,
    ) -> Result<Response<pb::CreateUserTokenResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let id = request_id(&wish.request_id);
        let minted = Mint::new(&self.kek).user_token(&caller.user, id.as_ref());
        let life = if wish.ttl_seconds == 0 { USER_TOKEN_TTL_SECONDS } else { wish.ttl_seconds };
        let new = NewToken {
            id: minted.id,
            hash: minted.hash,
            user: wish.user,
            scopes: wish.scopes.into_iter().collect(),
            note: wish.note,
            life_ms: i64::from(life) * 1000,
        };
        let given = self.service.put_token(&caller, id, new, now()).await.map_err(status)?;
        Ok(Response::new(pb::CreateUserTokenResponse {
            token: minted.text,
            details: Some(user_token(given)),
        }))
    }

    async fn list_user_tokens(
        &self,
        request: Request<pb::ListUserTokensRequest>,
    ) -> Result<Response<pb::ListUserTokensResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let listed = self.service.tokens(&caller, wish.user, wish.all, &page(wish.page)).await;
        let List { rows, next_page_token, revision } = listed.map_err(status)?;
        Ok(Response::new(pb::ListUserTokensResponse {
            tokens: rows.into_iter().map(user_token).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }

    async fn revoke_user_token(
        &self,
        request: Request<pb::RevokeUserTokenRequest>,
    ) -> Result<Response<pb::RevokeUserTokenResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let id = request_id(&wish.request_id);
        self.service.remove_token(&caller, id, wish.id).await.map_err(status)?;
        Ok(Response::new(pb::RevokeUserTokenResponse {}))
    }

    type SaveSnapshotStream = Pin<Box<dyn Stream<Item = Result<pb::SnapshotPart, Status>> + Send>>;

    async fn save_snapshot(
        &self,
        request: Request<pb::SaveSnapshotRequest>,
    ) -> Result<Response<Self::SaveSnapshotStream>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let begun = self.service.begin_backup(&caller, request_id(&wish.request_id), wish.with_blobs).await;
        begun.map_err(status)?;
        let blobs = wish.with_blobs.then(|| self.blobs.clone());
        let (sending, pieces) = Sending::new(self.membership.node.view(), blobs);
        self.tasks.spawn("backup", OnExit::Ignore, |stop| sending.run(stop));
        let parts = ReceiverStream::new(pieces).map(|piece| piece.map(|data| pb::SnapshotPart { data }));
        Ok(Response::new(Box::pin(parts)))
    }
}

fn user_token(token: UserToken) -> pb::UserToken {
    pb::UserToken {
        id: token.id,
        user: token.user.to_string(),
        scopes: token.scopes.into_iter().collect(),
        note: token.note,
        created_at_unix_ms: token.created_at.0,
        expires_at_unix_ms: token.expires_at.0,
    }
}
