//! A director that does what a test says, and a wire to it that can be cut.

use std::sync::Arc;
use std::time::Duration;

use dctl::client::{Fleet, Login, Patience, Trust};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use owned_tasks::{OnExit, OwnedTasks};
use proto::v1::blobs_server::{Blobs, BlobsServer};
use proto::v1::cluster_server::{Cluster, ClusterServer};
use proto::v1::health_server::{Health, HealthServer};
use proto::v1::instances_server::{Instances, InstancesServer};
use proto::v1::locks_server::{Locks, LocksServer};
use proto::v1::releases_server::{Releases, ReleasesServer};
use proto::v1::tasks_server::{Tasks, TasksServer};
use proto::v1::watch_server::{Watch, WatchServer};
use proto::v1::*;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

/// What a method does with a request.
pub type Answer<Q, A> = Box<dyn Fn(Request<Q>) -> BoxFuture<'static, Result<A, Status>> + Send + Sync>;
/// What a streaming method sends.
pub type Parts<T> = BoxStream<'static, Result<T, Status>>;

/// The script of one director; what a test does not say is UNIMPLEMENTED.
pub struct Script {
    pub status: Answer<ClusterStatusRequest, ClusterStatusResponse>,
    pub create_user_token: Answer<CreateUserTokenRequest, CreateUserTokenResponse>,
    pub instances: Answer<ListInstancesRequest, ListInstancesResponse>,
    pub orphaned_vms: Answer<ListOrphanedVmsRequest, ListOrphanedVmsResponse>,
    pub watch: Answer<WatchRequest, Parts<WatchResponse>>,
    pub locks: Answer<ListLocksRequest, ListLocksResponse>,
    pub agents: Answer<ListAgentsRequest, ListAgentsResponse>,
    pub deployments_health: Answer<ListDeploymentHealthRequest, ListDeploymentHealthResponse>,
    pub change_state: Answer<ChangeStateRequest, TaskStarted>,
    pub fetch_logs: Answer<FetchLogsRequest, TaskStarted>,
    pub ssh: Answer<SshRequest, TaskStarted>,
    pub export: Answer<ExportReleaseRequest, TaskStarted>,
    pub tasks: Answer<ListTasksRequest, ListTasksResponse>,
    pub task: Answer<GetTaskRequest, Task>,
    pub follow: Answer<FollowTaskRequest, Parts<TaskOutput>>,
    pub upload: Answer<Streaming<UploadBlobRequest>, UploadBlobResponse>,
    pub download: Answer<DownloadBlobRequest, Parts<BlobPart>>,
    pub stat: Answer<StatBlobRequest, StatBlobResponse>,
    pub list_certificates: Answer<ListFleetCertificatesRequest, ListFleetCertificatesResponse>,
    pub probe_clouds: Answer<ProbeCloudsRequest, ProbeCloudsResponse>,
    pub save_snapshot: Answer<SaveSnapshotRequest, Parts<SnapshotPart>>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            status: unscripted(),
            create_user_token: unscripted(),
            instances: unscripted(),
            orphaned_vms: unscripted(),
            watch: unscripted(),
            locks: unscripted(),
            agents: unscripted(),
            deployments_health: unscripted(),
            change_state: unscripted(),
            fetch_logs: unscripted(),
            ssh: unscripted(),
            export: unscripted(),
            tasks: unscripted(),
            task: unscripted(),
            follow: unscripted(),
            upload: unscripted(),
            download: unscripted(),
            stat: unscripted(),
            list_certificates: unscripted(),
            probe_clouds: unscripted(),
            save_snapshot: unscripted(),
        }
    }
}

fn unscripted<Q: 'static, A: 'static>() -> Answer<Q, A> {
    Box::new(|_| async { Err(Status::unimplemented("not in this test's script")) }.boxed())
}

/// Makes a method from a plain function.
pub fn answer<Q: 'static, A: Send + 'static>(
    of: impl Fn(Q) -> Result<A, Status> + Send + Sync + 'static,
) -> Answer<Q, A> {
    Box::new(move |request| std::future::ready(of(request.into_inner())).boxed())
}

/// Makes a method that says it was called, and never answers.
pub fn hang<Q: Send + 'static, A: Send + 'static>(called: tokio::sync::mpsc::Sender<Q>) -> Answer<Q, A> {
    Box::new(move |request| {
        let called = called.clone();
        async move {
            called.send(request.into_inner()).await.unwrap();
            std::future::pending().await
        }
        .boxed()
    })
}

/// Makes a stream of these messages.
pub fn parts<T: Send + 'static>(messages: Vec<Result<T, Status>>) -> Parts<T> {
    futures::stream::iter(messages).boxed()
}

#[derive(Clone)]
struct Scripted(Arc<Script>);

macro_rules! scripted {
    ($self:ident.$method:ident($request:ident)) => {
        ($self.0.$method)($request).await.map(Response::new)
    };
}

#[async_trait::async_trait]
impl Locks for Scripted {
    async fn list(&self, request: Request<ListLocksRequest>) -> Result<Response<ListLocksResponse>, Status> {
        scripted!(self.locks(request))
    }
}

#[async_trait::async_trait]
impl Health for Scripted {
    async fn agents(
        &self,
        request: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        scripted!(self.agents(request))
    }
    async fn deployments(
        &self,
        request: Request<ListDeploymentHealthRequest>,
    ) -> Result<Response<ListDeploymentHealthResponse>, Status> {
        scripted!(self.deployments_health(request))
    }
    async fn shards(&self, _: Request<ListShardsRequest>) -> Result<Response<ListShardsResponse>, Status> {
        Err(Status::unimplemented("never scripted"))
    }
    async fn set_resurrection(
        &self,
        _: Request<SetResurrectionRequest>,
    ) -> Result<Response<SetResurrectionResponse>, Status> {
        Err(Status::unimplemented("never scripted"))
    }
    async fn leaks(&self, _: Request<ListLeaksRequest>) -> Result<Response<ListLeaksResponse>, Status> {
        Err(Status::unimplemented("never scripted"))
    }
    async fn clear_leak(&self, _: Request<ClearLeakRequest>) -> Result<Response<ClearLeakResponse>, Status> {
        Err(Status::unimplemented("never scripted"))
    }
}

#[async_trait::async_trait]
impl Instances for Scripted {
    async fn list(
        &self,
        request: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesResponse>, Status> {
        scripted!(self.instances(request))
    }
    async fn change_state(
        &self,
        request: Request<ChangeStateRequest>,
    ) -> Result<Response<TaskStarted>, Status> {
        scripted!(self.change_state(request))
    }
    async fn fetch_logs(&self, request: Request<FetchLogsRequest>) -> Result<Response<TaskStarted>, Status> {
        scripted!(self.fetch_logs(request))
    }
    async fn ssh(&self, request: Request<SshRequest>) -> Result<Response<TaskStarted>, Status> {
        scripted!(self.ssh(request))
    }
    async fn list_orphaned_vms(
        &self,
        request: Request<ListOrphanedVmsRequest>,
    ) -> Result<Response<ListOrphanedVmsResponse>, Status> {
        scripted!(self.orphaned_vms(request))
    }
    async fn delete_vm(&self, _: Request<DeleteVmRequest>) -> Result<Response<TaskStarted>, Status> {
        Err(Status::unimplemented("never scripted"))
    }
    async fn ignore(&self, _: Request<IgnoreRequest>) -> Result<Response<IgnoreResponse>, Status> {
        Err(Status::unimplemented("never scripted"))
    }
}

#[async_trait::async_trait]
impl Releases for Scripted {
    async fn export(&self, request: Request<ExportReleaseRequest>) -> Result<Response<TaskStarted>, Status> {
        scripted!(self.export(request))
    }
    async fn upload(&self, _: Request<UploadReleaseRequest>) -> Result<Response<TaskStarted>, Status> {
        Err(Status::unimplemented("never scripted"))
    }
    async fn list(&self, _: Request<ListReleasesRequest>) -> Result<Response<ListReleasesResponse>, Status> {
        Err(Status::unimplemented("never scripted"))
    }
    async fn inspect(&self, _: Request<ReleaseRef>) -> Result<Response<ReleaseDetails>, Status> {
        Err(Status::unimplemented("never scripted"))
    }
    async fn delete(&self, _: Request<DeleteReleaseRequest>) -> Result<Response<TaskStarted>, Status> {
        Err(Status::unimplemented("never scripted"))
    }
}

#[async_trait::async_trait]
impl Tasks for Scripted {
    type FollowStream = Parts<TaskOutput>;

    async fn list(&self, request: Request<ListTasksRequest>) -> Result<Response<ListTasksResponse>, Status> {
        scripted!(self.tasks(request))
    }
    async fn get(&self, request: Request<GetTaskRequest>) -> Result<Response<Task>, Status> {
        scripted!(self.task(request))
    }
    async fn follow(
        &self,
        request: Request<FollowTaskRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        scripted!(self.follow(request))
    }
    async fn cancel(&self, _: Request<CancelTaskRequest>) -> Result<Response<CancelTaskResponse>, Status> {
        Err(Status::unimplemented("never scripted"))
    }
    async fn steps(&self, _: Request<GetTaskStepsRequest>) -> Result<Response<TaskSteps>, Status> {
        Err(Status::unimplemented("never scripted"))
    }
}

#[async_trait::async_trait]
impl Watch for Scripted {
    type WatchStream = Parts<WatchResponse>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        scripted!(self.watch(request))
    }
}

#[async_trait::async_trait]
impl Cluster for Scripted {
    type SaveSnapshotStream = Parts<SnapshotPart>;

    async fn save_snapshot(
        &self,
        request: Request<SaveSnapshotRequest>,
    ) -> Result<Response<Self::SaveSnapshotStream>, Status> {
        scripted!(self.save_snapshot(request))
    }
    async fn status(
        &self,
        request: Request<ClusterStatusRequest>,
    ) -> Result<Response<ClusterStatusResponse>, Status> {
        scripted!(self.status(request))
    }
    async fn list_certificates(
        &self,
        request: Request<ListFleetCertificatesRequest>,
    ) -> Result<Response<ListFleetCertificatesResponse>, Status> {
        scripted!(self.list_certificates(request))
    }
    async fn probe_clouds(
        &self,
        request: Request<ProbeCloudsRequest>,
    ) -> Result<Response<ProbeCloudsResponse>, Status> {
        scripted!(self.probe_clouds(request))
    }
    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Err(Status::unimplemented("never scripted"))
    }
    async fn create_join_token(
        &self,
        _: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        Err(Status::unimplemented("never scripted"))
    }
    async fn remove_member(
        &self,
        _: Request<RemoveMemberRequest>,
    ) -> Result<Response<RemoveMemberResponse>, Status> {
        Err(Status::unimplemented("never scripted"))
    }
    async fn transfer_leader(
        &self,
        _: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        Err(Status::unimplemented("never scripted"))
    }
    async fn put_user(&self, _: Request<PutUserRequest>) -> Result<Response<PutUserResponse>, Status> {
        Err(Status::unimplemented("never scripted"))
    }
    async fn remove_user(
        &self,
        _: Request<RemoveUserRequest>,
    ) -> Result<Response<RemoveUserResponse>, Status> {
        Err(Status::unimplemented("never scripted"))
    }
    async fn list_users(&self, _: Request<ListUsersRequest>) -> Result<Response<ListUsersResponse>, Status> {
        Err(Status::unimplemented("never scripted"))
    }
    async fn create_user_token(
        &self,
        request: Request<CreateUserTokenRequest>,
    ) -> Result<Response<CreateUserTokenResponse>, Status> {
        scripted!(self.create_user_token(request))
    }
    async fn list_user_tokens(
        &self,
        _: Request<ListUserTokensRequest>,
    ) -> Result<Response<ListUserTokensResponse>, Status> {
        Err(Status::unimplemented("never scripted"))
    }
    async fn revoke_user_token(
        &self,
        _: Request<RevokeUserTokenRequest>,
    ) -> Result<Response<RevokeUserTokenResponse>, Status> {
        Err(Status::unimplemented("never scripted"))
    }
}

#[async_trait::async_trait]
impl Blobs for Scripted {
    type DownloadStream = Parts<BlobPart>;

    async fn upload(
        &self,
        request: Request<Streaming<UploadBlobRequest>>,
    ) -> Result<Response<UploadBlobResponse>, Status> {
        scripted!(self.upload(request))
    }
    async fn download(
        &self,
        request: Request<DownloadBlobRequest>,
    ) -> Result<Response<Self::DownloadStream>, Status> {
        scripted!(self.download(request))
    }
    async fn stat(&self, request: Request<StatBlobRequest>) -> Result<Response<StatBlobResponse>, Status> {
        scripted!(self.stat(request))
    }
}

/// A director behind a wire. Dropping it is its death: every connection breaks at once.
pub struct Director {
    port: u16,
    _tasks: OwnedTasks,
    wire: JoinSet<()>,
}

impl Director {
    /// Starts a director without TLS.
    pub async fn start(script: Script) -> Self {
        Self::start_with(script, None).await
    }

    /// Starts a director, with TLS if `tls` is given.
    pub async fn start_with(script: Script, tls: Option<ServerTlsConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let behind = listener.local_addr().unwrap().port();
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).unwrap();
        }
        let script = Scripted(Arc::new(script));
        let router = server
            .add_service(ClusterServer::new(script.clone()))
            .add_service(WatchServer::new(script.clone()))
            .add_service(LocksServer::new(script.clone()))
            .add_service(HealthServer::new(script.clone()))
            .add_service(InstancesServer::new(script.clone()))
            .add_service(TasksServer::new(script.clone()))
            .add_service(ReleasesServer::new(script.clone()))
            .add_service(BlobsServer::new(script));
        let tasks = OwnedTasks::new();
        tasks.spawn("scripted director", OnExit::Ignore, async move |_| {
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = front.local_addr().unwrap().port();
        let mut wire = JoinSet::new();
        wire.spawn(carry(front, behind));
        Self { port, _tasks: tasks, wire }
    }

    /// Returns its address for `--endpoint`.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it: connections break, and new ones are refused.
    pub async fn kill(mut self) {
        self.wire.shutdown().await;
    }
}

/// Copies bytes between clients and the server, until it is dropped with all its connections.
async fn carry(front: TcpListener, behind: u16) {
    let mut connections = JoinSet::new();
    loop {
        let (mut client, _) = front.accept().await.unwrap();
        connections.spawn(async move {
            if let Ok(mut server) = TcpStream::connect(("127.0.0.1", behind)).await {
                // However it ends, it has ended.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}

/// Returns an address that nobody listens on.
pub async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port())
}

/// Returns a client of these directors that gives up after `total`.
pub fn client(addresses: &[String], total: Duration) -> Fleet {
    Fleet::new(addresses, &Trust::Nobody, &Login::default(), Patience::within(total)).unwrap()
}

/// Long enough for a loaded machine: no test waits for it to pass.
pub const AMPLE: Duration = Duration::from_secs(60);
