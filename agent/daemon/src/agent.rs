//! The agent as a whole: boots its machine, gets its identity, and keeps one stream to some director for ever.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::AgentId;
use model::agent_settings::AgentSettings;
use owned_tasks::OwnedTasks;
use rand::Rng as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::{debug, info, warn};

use crate::dial::{Directory, Learned, connect, moment_after_loss};
use crate::dispatch::Dispatcher;
use crate::error::ActionError;
use crate::identity::{Identity, IdentityError};
use crate::layout::Layout;
use crate::machine::{Machine, Notices};
use crate::session::{self, Ended, Event, Opened, Parts, Session};
use crate::storage::Storage;
use crate::way::Way;

/// Waits between dials while no director can be reached.
pub const DIAL_AGAIN: retry::Policy =
    retry::Policy { initial: Duration::from_millis(200), max: Duration::from_secs(15), total: None };

/// Waits between attempts to renew a certificate that is still good.
const RENEW_AGAIN: retry::Policy =
    retry::Policy { initial: Duration::from_secs(5), max: Duration::from_secs(300), total: None };

/// How often an agent that is served away from home tries whether home can be reached again.
const HOME_AGAIN_EVERY: Duration = Duration::from_secs(60);

/// A running machine may be suspended: what is due by the wall clock is looked at this often at least.
const CLOCK_LOOK_EVERY: Duration = Duration::from_secs(60);

/// Why an agent can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its identity can't be read.
    #[error("cannot start agent {agent}")]
    Identity {
        /// Which agent.
        agent: AgentId,
        /// Why.
        #[source]
        source: IdentityError,
    },
    /// What it remembers can't be read.
    #[error("cannot read what agent {agent} remembers")]
    Memory {
        /// Which agent.
        agent: AgentId,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The machine can't be put in order.
    #[error("cannot boot the machine of agent {agent}")]
    Boot {
        /// Which agent.
        agent: AgentId,
        /// Why.
        #[source]
        source: ActionError,
    },
}

/// The connection to whichever director serves the agent now; shared with those who move blobs over it.
#[derive(Clone)]
pub struct Link(Arc<watch::Sender<Option<Channel>>>);

impl Default for Link {
    fn default() -> Self {
        Self(Arc::new(watch::channel(None).0))
    }
}

impl Link {
    /// Waits for a connection to a director.
    pub(crate) async fn channel(&self) -> Channel {
        let mut link = self.0.subscribe();
        loop {
            if let Some(channel) = link.borrow_and_update().clone() {
                return channel;
            }
            if link.changed().await.is_err() {
                // The sender lives in `self`.
                std::future::pending::<()>().await;
            }
        }
    }

    fn set(&self, channel: Option<Channel>) {
        self.0.send_replace(channel);
    }
}

/// How long an agent whose machine goes off may take to say the last of what it has to say.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);

/// What an agent consists of.
pub struct AgentParts {
    /// Who it is and whom to dial.
    pub settings: AgentSettings,
    /// What it acts on.
    pub machine: Arc<dyn Machine>,
    /// Where it remembers.
    pub storage: Storage,
    /// Its connection, as the machine knows it.
    pub link: Link,
    /// What its machine wants the health monitor to hear.
    pub notices: Arc<Notices>,
}

/// An agent; [`Agent::run`] is its life.
pub struct Agent {
    settings: AgentSettings,
    storage: Storage,
    identity: Identity,
    directory: Directory,
    link: Link,
    parts: Parts,
    /// Fires when the machine goes off.
    off: CancellationToken,
}

/// Why a session was left, as far as the next dial is concerned.
enum Next {
    /// Dial at once.
    Now,
    /// The director was lost: dial after a random moment.
    Spread,
    /// Not at all: the machine goes off.
    Never,
}

impl Agent {
    /// Reads what an earlier life left. The requests run in `tasks` and end with them.
    pub fn new(parts: AgentParts, tasks: OwnedTasks) -> Result<Self, StartError> {
        let AgentParts { settings, machine, storage, link, notices } = parts;
        let agent = settings.agent_id.clone();
        let memory = |source| StartError::Memory { agent: agent.clone(), source };
        let identity = Identity::open(agent.clone(), storage.clone(), settings.authorities_pem.clone())
            .map_err(|source| StartError::Identity { agent: agent.clone(), source })?;
        let dispatcher = Dispatcher::open(storage.clone(), machine.clone(), tasks).map_err(memory)?;
        let known: Option<Vec<String>> = storage.read(Layout::endpoints).map_err(memory)?;
        let mut directory = Directory::new(settings.endpoints.clone());
        directory.learn(known.unwrap_or_default());
        let parts = Parts { agent, dispatcher, machine, notices };
        let off = CancellationToken::new();
        Ok(Self { settings, storage, identity, directory, link, parts, off })
    }

    /// Has it end once its machine goes off and its director has heard the last of it.
    #[must_use]
    pub fn until(self, off: CancellationToken) -> Self {
        Self { off, ..self }
    }

    /// Boots the machine, then serves directors until `stop`.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), StartError> {
        let agent = self.settings.agent_id.clone();
        self.parts.machine.boot().await.map_err(|source| StartError::Boot { agent, source })?;
        let off = self.off.clone();
        let gone = async {
            off.cancelled().await;
            tokio::time::sleep(LEAVES_WITHIN).await;
        };
        tokio::select! {
            () = self.serve() => {}
            () = gone => {}
            () = stop.cancelled() => {}
        }
        self.link.set(None);
        Ok(())
    }

    async fn serve(&mut self) {
        let mut waits = DIAL_AGAIN.waits();
        loop {
            match self.attach().await {
                Some((session, channel, endpoint)) => {
                    waits.reset();
                    let next = self.stay(session, &channel, &endpoint).await;
                    self.link.set(None);
                    match next {
                        Next::Now => {}
                        Next::Spread => {
                            // Drawn before the wait: the source of chance must not be held across it, it is not `Send`.
                            let moment = moment_after_loss(&mut rand::rng());
                            tokio::time::sleep(moment).await;
                        }
                        Next::Never => return,
                    }
                }
                // The policy has no end.
                None => tokio::time::sleep(waits.next().unwrap_or(DIAL_AGAIN.max)).await,
            }
        }
    }

    /// Dials one director, and where it sends the agent. `None`: try again after a wait.
    async fn attach(&mut self) -> Option<(Box<Session>, Channel, String)> {
        // A redirect is followed at once; the directory ends a chase that leads nowhere.
        loop {
            let endpoint = self.directory.next(Instant::now(), &mut rand::rng())?;
            let channel = match self.connect(&endpoint).await {
                Ok(channel) => channel,
                Err(reason) => {
                    warn!(endpoint, reason, "a director can't be reached");
                    self.directory.failed(&endpoint, Instant::now());
                    return None;
                }
            };
            let unreachable = self.directory.unreachable_home(Instant::now()).map(str::to_owned);
            match session::open(self.parts.clone(), channel.clone(), unreachable.as_deref()).await {
                Ok((Opened::Welcome(session), endpoints)) => {
                    info!(endpoint, "attached to a director");
                    self.learn(endpoints).await;
                    self.directory.served(&endpoint, Instant::now());
                    self.link.set(Some(channel.clone()));
                    return Some((session, channel, endpoint));
                }
                Ok((Opened::Redirect { home }, endpoints)) => {
                    self.learn(endpoints).await;
                    self.directory.redirected(home, Instant::now());
                }
                Err(status) => {
                    warn!(endpoint, error = %status.message(), "a director does not welcome the agent");
                    self.directory.failed(&endpoint, Instant::now());
                    return None;
                }
            }
        }
    }

    fn way(&self) -> Way {
        Way::of(self.settings.director_proxy)
    }

    /// Connects with a good certificate, enrolling first where there is none.
    async fn connect(&mut self, endpoint: &str) -> Result<Channel, String> {
        let authorities = self.identity.authorities_pem().to_owned();
        if self.identity.credentials().is_none() {
            let channel =
                connect(endpoint, self.way(), &authorities, None).await.map_err(|error| chain(&error))?;
            self.identity.enroll(channel, &self.settings.token).await.map_err(|error| chain(&error))?;
            info!(endpoint, "enrolled");
        }
        let authorities = self.identity.authorities_pem().to_owned();
        connect(endpoint, self.way(), &authorities, self.identity.credentials())
            .await
            .map_err(|error| chain(&error))
    }

    /// Serves one director until there is a reason to leave it.
    async fn stay(&mut self, mut session: Box<Session>, channel: &Channel, endpoint: &str) -> Next {
        loop {
            tokio::select! {
                event = session.next() => match event {
                    Event::Endpoints(endpoints) => self.learn(endpoints).await,
                    Event::Ended(Ended::Redirected { home, endpoints }) => {
                        self.learn(endpoints).await;
                        self.directory.redirected(home, Instant::now());
                        return Next::Now;
                    }
                    Event::Ended(Ended::Lost(why)) => {
                        warn!(endpoint, why, "the director was lost");
                        self.directory.failed(endpoint, Instant::now());
                        return Next::Spread;
                    }
                },
                () = renewed(&mut self.identity, channel) => {
                    info!(endpoint, "the certificate was renewed; the stream is opened anew with it");
                    return Next::Now;
                }
                () = self.off.cancelled() => {
                    session.leave().await;
                    return Next::Never;
                }
                () = home_again(self.directory.home_to_try(endpoint), Way::of(self.settings.director_proxy)) => {
                    debug!(endpoint, "the agent goes home");
                    return Next::Now;
                }
            }
        }
    }

    async fn learn(&mut self, endpoints: Vec<String>) {
        if self.directory.learn(endpoints) == Learned::Nothing {
            return;
        }
        if let Err(error) = self.storage.write(Layout::endpoints, &self.directory.known()).await {
            warn!(error = %error, "the directors' addresses can't be stored");
        }
    }
}

/// Returns once the certificate has been renewed.
async fn renewed(identity: &mut Identity, channel: &Channel) {
    let mut waits = RENEW_AGAIN.waits();
    loop {
        let left = identity.renewal_in();
        if !left.is_zero() {
            tokio::time::sleep(left.min(CLOCK_LOOK_EVERY)).await;
            continue;
        }
        match identity.renew(channel.clone()).await {
            Ok(()) => return,
            Err(error) => {
                warn!(error = chain(&error), "the certificate can't be renewed now");
                // The policy has no end.
                tokio::time::sleep(waits.next().unwrap_or(RENEW_AGAIN.max)).await;
            }
        }
    }
}

/// Returns once the agent's home, which is not where it is served, accepts connections again.
async fn home_again(home: Option<String>, way: Way) {
    let Some(home) = home else { return std::future::pending().await };
    loop {
        let wait = HOME_AGAIN_EVERY.mul_f64(rand::rng().random_range(1.0..1.5));
        tokio::time::sleep(wait).await;
        let probe = way.open(&home);
        if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(3), probe).await {
            return;
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
