//! The operator: dctl's own client, with the questions that the stories ask again and again.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dctl::call;
use dctl::client::{Fleet, Login, Patience, Trust};
use dctl::follow::{self, Until};
use dctl::settings::Profile;
use proto::v1::cluster_client::ClusterClient;
use proto::v1::configs_client::ConfigsClient;
use proto::v1::deployments_client::DeploymentsClient;
use proto::v1::events_client::EventsClient;
use proto::v1::follow_task_request::Kind as Output;
use proto::v1::health_client::HealthClient;
use proto::v1::instances_client::InstancesClient;
use proto::v1::locks_client::LocksClient;
use proto::v1::tasks_client::TasksClient;
use proto::v1::*;

/// How long a fleet may take to answer: many elections, and a build machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whom to be.
#[derive(Clone, Debug)]
pub struct Credentials {
    authority_pem: String,
    user: String,
    password: String,
}

impl Credentials {
    /// Reads the profile that `directord init` wrote.
    pub fn from_profile(path: &Path) -> Result<Self> {
        let path = path.to_str().context("the profile's path is UTF-8")?;
        let profile = Profile::read(path.into())?;
        Ok(Self {
            authority_pem: profile.ca_pem.context("the profile has the authority")?,
            user: profile.user.context("the profile has a user")?,
            password: profile.password.context("the profile has a password")?,
        })
    }

    /// Takes a login that somebody was told.
    pub fn new(authority_pem: &str, user: &str, password: &str) -> Self {
        Self { authority_pem: authority_pem.to_owned(), user: user.to_owned(), password: password.to_owned() }
    }

    /// Returns the same user with another password.
    pub fn with_password(&self, password: &str) -> Self {
        Self { password: password.to_owned(), ..self.clone() }
    }

    /// Returns the authority's certificate.
    pub fn authority_pem(&self) -> &str {
        &self.authority_pem
    }
}

/// Calls to a fleet, or to some of its replicas.
pub struct Client {
    /// For calls that have no method here: `call!(client.fleet, …)`.
    pub fleet: Fleet,
}

impl Client {
    /// Prepares connections to these addresses; nothing is sent yet.
    pub fn new(addresses: &[String], credentials: &Credentials) -> Result<Self> {
        Self::with_patience(addresses, credentials, Patience::within(PATIENCE))
    }

    /// As [`Client::new`], as patient as told.
    pub fn with_patience(
        addresses: &[String],
        credentials: &Credentials,
        patience: Patience,
    ) -> Result<Self> {
        let trust = Trust::Authority(credentials.authority_pem.clone());
        let login = Login::basic(&credentials.user, &credentials.password)?;
        Ok(Self { fleet: Fleet::new(addresses, &trust, &login, patience)? })
    }

    /// Returns the members as the answering replica sees them.
    pub async fn status(&self) -> Result<ClusterStatusResponse> {
        Ok(call!(self.fleet, ClusterClient.status(ClusterStatusRequest {})).await?)
    }

    /// Returns a token for one more replica.
    pub async fn join_token(&self, ttl_seconds: u32) -> Result<String> {
        let request = CreateJoinTokenRequest { request_id: dctl::client::request_id(), ttl_seconds };
        Ok(call!(self.fleet, ClusterClient.create_join_token(request)).await?.token)
    }

    /// Stores a config, the smallest mutation there is; returns its number.
    pub async fn put_config(&self, name: &str, content: &str) -> Result<u64> {
        let request = PutConfigRequest {
            request_id: dctl::client::request_id(),
            r#type: "note".into(),
            name: name.into(),
            content: content.into(),
            expected_latest_id: None,
        };
        Ok(call!(self.fleet, ConfigsClient.put(request)).await?.id)
    }

    /// Returns a config's newest content.
    pub async fn config(&self, kind: &str, name: &str) -> Result<String> {
        let request = GetConfigRequest { id: 0, r#type: kind.into(), name: name.into() };
        Ok(call!(self.fleet, ConfigsClient.get(request)).await?.content)
    }

    /// Starts a deploy.
    pub async fn deploy(&self, manifest: &str, request_id: &str) -> Result<u64> {
        let request = DeployRequest {
            request_id: request_id.into(),
            manifest: manifest.into(),
            options: Some(DeployOptions::default()),
            context_id: String::new(),
        };
        Ok(call!(self.fleet, DeploymentsClient.deploy(request)).await?.task_id)
    }

    /// Returns the names of the deployments.
    pub async fn deployments(&self) -> Result<Vec<String>> {
        let request = ListDeploymentsRequest { page: page(), freshness: Freshness::Linearizable.into() };
        let answer = call!(self.fleet, DeploymentsClient.list(request)).await?;
        Ok(answer.deployments.into_iter().map(|d| d.name).collect())
    }

    /// Returns a deployment's instances, with what their agents say. At most one page of them.
    pub async fn instances(&self, deployment: &str) -> Result<Vec<Instance>> {
        let request = ListInstancesRequest {
            deployment: deployment.into(),
            vitals: true,
            page: page(),
            freshness: Freshness::Linearizable.into(),
        };
        let mut instances = call!(self.fleet, InstancesClient.list(request)).await?.instances;
        instances.sort_by(|a, b| (&a.group, a.index).cmp(&(&b.group, b.index)));
        Ok(instances)
    }

    /// Returns a task.
    pub async fn task(&self, id: u64) -> Result<Task> {
        Ok(call!(self.fleet, TasksClient.get(GetTaskRequest { id })).await?)
    }

    /// Returns the newest tasks, ended ones too.
    pub async fn tasks(&self) -> Result<Vec<Task>> {
        let request = ListTasksRequest { current: false, deployment: String::new(), page: page() };
        Ok(call!(self.fleet, TasksClient.list(request)).await?.tasks)
    }

    /// Waits for a task's end and returns it as it ended, however that is.
    pub async fn ended(&self, id: u64, limit: Duration) -> Result<Task> {
        let is_over = |task: &Task| ["done", "error", "cancelled", "timeout"].contains(&task.state.as_str());
        let what = format!("task {id} has ended");
        crate::wait::until(&what, limit, async || Ok(Some(self.task(id).await?).filter(is_over))).await
    }

    /// Waits for a task's end, which must be a good one.
    pub async fn done(&self, id: u64, limit: Duration) -> Result<Task> {
        let task = self.ended(id, limit).await?;
        ensure!(task.state == "done", "task {id} ended as {}: {}", task.state, task.error_message);
        Ok(task)
    }

    /// Returns what is stored of one of a task's outputs.
    pub async fn output(&self, id: u64, output: Output) -> Result<String> {
        Ok(String::from_utf8(follow::read(&self.fleet, id, output).await?)?)
    }

    /// Follows a task's events to its end through whatever happens, and returns every byte.
    pub async fn follow(&self, id: u64) -> Result<String> {
        let mut bytes = Vec::new();
        let sink = &mut follow::Raw::new(&mut bytes);
        follow::follow(&self.fleet, id, Output::Event, Until::TaskEnds, sink).await?;
        Ok(String::from_utf8(bytes)?)
    }

    /// Returns the plan and the journal of a task.
    pub async fn steps(&self, id: u64) -> Result<Vec<TaskUnit>> {
        Ok(call!(self.fleet, TasksClient.steps(GetTaskStepsRequest { id, page: page() })).await?.units)
    }

    /// Returns the locks that are held.
    pub async fn locks(&self) -> Result<Vec<Lock>> {
        Ok(call!(self.fleet, LocksClient.list(ListLocksRequest { page: page() })).await?.locks)
    }

    /// Returns the newest audit events of one action on one type of object.
    pub async fn events(&self, action: &str, object_type: &str) -> Result<Vec<Event>> {
        let request = ListEventsRequest { page: page(), ..ListEventsRequest::default() };
        let events = call!(self.fleet, EventsClient.list(request)).await?.events;
        Ok(events.into_iter().filter(|e| e.action == action && e.object_type == object_type).collect())
    }

    /// Returns the VMs that no instance uses any more.
    pub async fn orphaned_vms(&self) -> Result<Vec<OrphanedVm>> {
        let request = ListOrphanedVmsRequest { page: page() };
        Ok(call!(self.fleet, InstancesClient.list_orphaned_vms(request)).await?.vms)
    }

    /// Returns what may have been left behind in the cloud, without what the fleet itself still looks for.
    pub async fn lost(&self) -> Result<Vec<Leak>> {
        Ok(self.leaks().await?.into_iter().filter(|leak| leak.looked_for_ms == 0).collect())
    }

    /// Returns what may have been left behind in the cloud.
    pub async fn leaks(&self) -> Result<Vec<Leak>> {
        Ok(call!(self.fleet, HealthClient.leaks(ListLeaksRequest { page: page() })).await?.leaks)
    }
}

/// The largest page that the API gives: the stories stay below it.
pub(crate) fn page() -> Option<Page> {
    Some(Page { size: 1000, token: String::new() })
}
