//! The daemon, as blocking calls: each names its deed and its object when it fails. Called on threads that may wait.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse};
use bollard::query_parameters as query;
use bollard::{API_DEFAULT_VERSION, Docker, body_full};
use bytes::Bytes;
use futures::TryStreamExt as _;
use tokio::runtime::Handle;

use cpi_host::Chain;

use crate::error::DockerError;

/// How long the daemon may take for one request; importing a stemcell is the longest.
const REQUEST_SECONDS_MAX: u64 = 600;

/// The daemon behind a socket.
pub(crate) struct Daemon {
    socket: PathBuf,
    /// Set once the daemon has said which version of its API it speaks.
    client: Mutex<Option<Docker>>,
}

impl Daemon {
    /// Takes the socket; asks nothing yet.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), client: Mutex::new(None) }
    }

    /// Makes a request; `doing` and `object` are for its failure.
    pub fn ask<T>(
        &self,
        doing: &'static str,
        object: &str,
        request: impl AsyncFnOnce(Docker) -> Result<T, Error>,
    ) -> Result<T, DockerError> {
        let client = self.client()?;
        Handle::current().block_on(request(client)).map_err(DockerError::daemon(doing, object))
    }

    fn client(&self) -> Result<Docker, DockerError> {
        let known = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(client) = known {
            return Ok(client);
        }
        let socket = self.socket.display().to_string();
        let negotiate = async {
            let fresh = Docker::connect_with_unix(&socket, REQUEST_SECONDS_MAX, API_DEFAULT_VERSION)?;
            fresh.negotiate_version().await
        };
        let client =
            Handle::current().block_on(negotiate).map_err(DockerError::daemon("answer at", &socket))?;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
        Ok(client)
    }

    /// Returns a container, if there is one.
    pub fn container(&self, name: &str) -> Result<Option<ContainerInspectResponse>, DockerError> {
        let inspect = async |docker: Docker| docker.inspect_container(name, None).await;
        absent_is_none(self.ask("look at container", name, inspect))
    }

    /// Makes a container. It does not run yet.
    pub fn create(&self, name: &str, body: ContainerCreateBody) -> Result<(), DockerError> {
        let options = query::CreateContainerOptionsBuilder::new().name(name).build();
        let create = async |docker: Docker| docker.create_container(Some(options), body).await;
        self.ask("create container", name, create).map(drop)
    }

    /// Unpacks a tar archive at the root of a container, whether it runs or not.
    pub fn put(&self, name: &str, archive: Vec<u8>) -> Result<(), DockerError> {
        let options = query::UploadToContainerOptionsBuilder::new().path("/").build();
        let body = body_full(Bytes::from(archive));
        let put = async |docker: Docker| docker.upload_to_container(name, Some(options), body).await;
        self.ask("copy files into container", name, put)
    }

    /// Starts a container.
    pub fn start(&self, name: &str) -> Result<(), DockerError> {
        let start = async |docker: Docker| docker.start_container(name, None).await;
        self.ask("start container", name, start)
    }

    /// Ends everything in a container and starts it again.
    pub fn restart(&self, name: &str) -> Result<(), DockerError> {
        let options = query::RestartContainerOptionsBuilder::new().t(0).build();
        let restart = async |docker: Docker| docker.restart_container(name, Some(options)).await;
        self.ask("restart container", name, restart)
    }

    /// Ends and removes a container with its nameless volumes; one that is gone counts as removed.
    pub fn remove(&self, name: &str) -> Result<(), DockerError> {
        let options = query::RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let remove = async |docker: Docker| docker.remove_container(name, Some(options)).await;
        absent_is_none(self.ask("remove container", name, remove)).map(drop)
    }

    /// Waits until a container has ended and returns its exit code.
    pub fn wait(&self, name: &str) -> Result<i64, DockerError> {
        let wait = async |docker: Docker| match docker.wait_container(name, None).try_next().await {
            Ok(answer) => Ok(answer.map_or(0, |answer| answer.status_code)),
            Err(Error::DockerContainerWaitError { code, .. }) => Ok(code),
            Err(error) => Err(error),
        };
        self.ask("wait for container", name, wait)
    }

    /// Returns the last lines that a container has printed.
    pub fn last_words(&self, name: &str) -> Result<String, DockerError> {
        let options = query::LogsOptionsBuilder::new().stdout(true).stderr(true).tail("5").build();
        let logs = async |docker: Docker| {
            let lines: Vec<_> = docker.logs(name, Some(options)).try_collect().await?;
            Ok(lines.iter().map(ToString::to_string).collect::<String>())
        };
        self.ask("read the output of container", name, logs)
    }

    /// Makes a volume; one that is there stays as it is.
    pub fn create_volume(&self, name: &str, labels: HashMap<String, String>) -> Result<(), DockerError> {
        let request = bollard::models::VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(labels),
            ..Default::default()
        };
        let create = async |docker: Docker| docker.create_volume(request).await;
        self.ask("create volume", name, create).map(drop)
    }

    /// Returns a volume's labels, if there is such a volume.
    pub fn volume(&self, name: &str) -> Result<Option<HashMap<String, String>>, DockerError> {
        let inspect = async |docker: Docker| docker.inspect_volume(name).await;
        Ok(absent_is_none(self.ask("look at volume", name, inspect))?.map(|volume| volume.labels))
    }

    /// Removes a volume; one that is gone counts as removed.
    pub fn remove_volume(&self, name: &str) -> Result<(), DockerError> {
        let remove =
            async |docker: Docker| docker.remove_volume(name, None::<query::RemoveVolumeOptions>).await;
        absent_is_none(self.ask("remove volume", name, remove)).map(drop)
    }

    /// Removes an image; one that is gone counts as removed.
    pub fn remove_image(&self, name: &str) -> Result<(), DockerError> {
        let remove =
            async |docker: Docker| docker.remove_image(name, None::<query::RemoveImageOptions>, None).await;
        absent_is_none(self.ask("remove image", name, remove)).map(drop)
    }

    /// Returns whether there is such an image.
    pub fn has_image(&self, name: &str) -> Result<bool, DockerError> {
        let inspect = async |docker: Docker| docker.inspect_image(name).await;
        Ok(absent_is_none(self.ask("look at image", name, inspect))?.is_some())
    }
}

/// Returns what the daemon at a socket says that it is; in words why it does not.
pub async fn version_at(socket: &Path) -> Result<String, String> {
    let object = socket.display().to_string();
    let ask = async {
        let docker = Docker::connect_with_unix(&object, REQUEST_SECONDS_MAX, API_DEFAULT_VERSION)?;
        docker.negotiate_version().await?.version().await
    };
    let version = ask.await.map_err(|error| {
        let error = DockerError::daemon("answer at", &object)(error);
        Chain(&error).to_string()
    })?;
    let said = |text: Option<String>| text.unwrap_or_else(|| "?".into());
    Ok(format!("Docker {} speaks version {} of its API", said(version.version), said(version.api_version)))
}

/// Turns the daemon's "no such …" into nothing.
pub(crate) fn absent_is_none<T>(answer: Result<T, DockerError>) -> Result<Option<T>, DockerError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}
