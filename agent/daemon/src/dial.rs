//! Which director to dial next, and how.
//!
//! The choice is pure ([`Directory`]); [`connect`] carries it out. A thousand agents that lost one director must not
//! dial the next one in step: the order is shuffled per agent, the wait after a loss drawn ([`moment_after_loss`]), and every
//! other wait jittered by the caller.

use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use model::agent_settings::DIRECTOR_TLS_NAME;
use rand::Rng;
use rand::seq::SliceRandom as _;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::identity::Credentials;
use crate::way::Way;

/// How long one director may take to accept a connection and prove who it is.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);

/// HTTP/2 pings notice a peer that vanished without a word, also during a long blob transfer.
const PING_EVERY: Duration = Duration::from_secs(10);
const PONG_WITHIN: Duration = Duration::from_secs(5);

/// How long a home that could not be reached is left alone.
const HOME_LEFT_ALONE: Duration = Duration::from_secs(60);

/// Most directors remembered; a fleet has a handful.
const ENDPOINTS_MAX: usize = 32;

/// Redirects in a row after which the agent asks to be served where it is: two directors may disagree for a while.
const REDIRECTS_MAX: u32 = 3;

/// After a director was lost, its agents dial the others at random moments within this.
pub(crate) const LOST_SPREAD: Duration = Duration::from_millis(400);

/// Returns how long an agent waits before it dials again after it has lost its director.
pub fn moment_after_loss(chance: &mut impl Rng) -> Duration {
    LOST_SPREAD.mul_f64(chance.random_range(0.0..1.0))
}

/// The directors that this agent knows, and its home among them.
#[derive(Debug, Default)]
pub struct Directory {
    known: Vec<String>,
    queue: Vec<String>,
    home: Option<String>,
    unreachable: Option<(String, Instant)>,
    redirects: u32,
}

impl Directory {
    /// Returns one that knows these directors.
    pub fn new(known: Vec<String>) -> Self {
        Self { known, ..Self::default() }
    }

    /// Takes in where directors can be reached now. An empty list would leave the agent alone for ever: it is ignored.
    pub fn learn(&mut self, mut endpoints: Vec<String>) -> Learned {
        endpoints.truncate(ENDPOINTS_MAX);
        if endpoints.is_empty() || endpoints == self.known {
            return Learned::Nothing;
        }
        self.queue.retain(|queued| endpoints.contains(queued));
        self.known = endpoints;
        Learned::News
    }

    pub(crate) fn known(&self) -> &[String] {
        &self.known
    }

    /// Returns whom to dial now: home first, then the others in a shuffled order, each once before any comes again.
    pub fn next(&mut self, now: Instant, chance: &mut impl Rng) -> Option<String> {
        if self.queue.is_empty() {
            self.queue = self.known.clone();
            self.queue.shuffle(chance);
            if let Some(home) = self.home.clone().filter(|_| self.unreachable_home(now).is_none()) {
                self.queue.retain(|queued| *queued != home);
                self.queue.push(home);
            }
        }
        self.queue.pop()
    }

    /// Takes in that a director named the agent's home.
    pub fn redirected(&mut self, home: String, now: Instant) {
        self.redirects += 1;
        self.home = Some(home.clone());
        self.queue.clear();
        if self.redirects > REDIRECTS_MAX {
            self.unreachable = Some((home, now));
        }
    }

    /// Takes in that a director could not be reached, or was lost.
    pub fn failed(&mut self, endpoint: &str, now: Instant) {
        if self.home.as_deref() == Some(endpoint) {
            self.unreachable = Some((endpoint.to_owned(), now));
            self.queue.retain(|queued| queued != endpoint);
        }
    }

    /// Takes in that a director serves the agent. Unless the agent had to say that it can't reach its home, this is
    /// its home now.
    pub fn served(&mut self, endpoint: &str, now: Instant) {
        if self.unreachable_home(now).is_none() {
            self.home = Some(endpoint.to_owned());
        }
        self.redirects = 0;
        self.queue.clear();
    }

    /// Returns the home that could not be reached lately.
    pub fn unreachable_home(&self, now: Instant) -> Option<&str> {
        let (endpoint, since) = self.unreachable.as_ref()?;
        (now.duration_since(*since) < HOME_LEFT_ALONE).then_some(endpoint.as_str())
    }

    /// Returns the home to try again, if the agent is served elsewhere because it could not be reached.
    pub fn home_to_try(&self, served_by: &str) -> Option<String> {
        self.home.clone().filter(|home| home != served_by)
    }
}

/// Whether a list of directors was news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It was.
    News,
    /// It was not.
    Nothing,
}

/// Why a director can't be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// It does not accept the connection, or is not a director of ours.
    #[error("cannot connect to `{endpoint}`")]
    Refused {
        /// Which one.
        endpoint: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// It says nothing.
    #[error("`{endpoint}` did not answer in {CONNECTED_WITHIN:?}")]
    Silent {
        /// Which one.
        endpoint: String,
    },
}

/// Opens a verified connection to a director; with credentials, as an agent that it knows.
pub(crate) async fn connect(
    endpoint: &str,
    way: Way,
    authorities_pem: &str,
    credentials: Option<Credentials>,
) -> Result<Channel, DialError> {
    // The transport's own limit ends with the TCP connection, and something on the way may accept that for a director that
    // says nothing.
    let opening = open(endpoint, way, authorities_pem, credentials);
    match tokio::time::timeout(CONNECTED_WITHIN, opening).await {
        Ok(opened) => opened.map_err(|source| DialError::Refused { endpoint: endpoint.to_owned(), source }),
        Err(_) => Err(DialError::Silent { endpoint: endpoint.to_owned() }),
    }
}

async fn open(
    endpoint: &str,
    way: Way,
    authorities_pem: &str,
    credentials: Option<Credentials>,
) -> Result<Channel, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authorities_pem))
        .domain_name(DIRECTOR_TLS_NAME);
    if let Some(credentials) = credentials {
        tls = tls.identity(Identity::from_pem(credentials.chain_pem, credentials.key_pem));
    }
    let dialled = Endpoint::from_shared(format!("https://{endpoint}"))?
        .tls_config(tls)?
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    match way {
        Way::Direct => dialled.connect().await,
        Way::Through(_) => {
            let endpoint = endpoint.to_owned();
            let connector = tower::service_fn(move |_| {
                let endpoint = endpoint.clone();
                async move { way.open(&endpoint).await.map(TokioIo::new) }
            });
            dialled.connect_with_connector(connector).await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    fn directory() -> Directory {
        Directory::new(["a:1", "b:1", "c:1"].map(String::from).into())
    }

    #[test]
    fn every_director_is_tried_before_any_comes_again() {
        let (mut directory, mut chance, now) = (directory(), rand::rng(), Instant::now());
        for _ in 0..5 {
            let round: BTreeSet<_> = (0..3).filter_map(|_| directory.next(now, &mut chance)).collect();
            assert_eq!(round.len(), 3);
        }
    }

    #[test]
    fn agents_that_lost_one_director_dial_again_at_moments_that_fill_the_spread_evenly() {
        const PARTS: usize = 8;
        for seed in 0..10 {
            let mut chance = StdRng::seed_from_u64(seed);
            let mut agents = [0; PARTS];
            for _ in 0..1000 {
                let moment = moment_after_loss(&mut chance);
                assert!(moment < LOST_SPREAD, "{moment:?}");
                agents[(moment.as_secs_f64() / LOST_SPREAD.as_secs_f64() * PARTS as f64) as usize] += 1;
            }
            // 125 in each, give or take five standard deviations.
            assert!(agents.iter().all(|count| (75..=175).contains(count)), "seed {seed}: {agents:?}");
        }
    }

    #[test]
    fn agents_try_the_other_directors_in_orders_of_their_own() {
        let now = Instant::now();
        let mut firsts = BTreeMap::<String, u32>::new();
        let mut orders = BTreeSet::new();
        for seed in 0..1000 {
            let (mut directory, mut chance) = (directory(), StdRng::seed_from_u64(seed));
            let order: Vec<String> = (0..3).filter_map(|_| directory.next(now, &mut chance)).collect();
            *firsts.entry(order[0].clone()).or_default() += 1;
            orders.insert(order);
        }
        assert_eq!(orders.len(), 6, "{orders:?}");
        assert!(firsts.values().all(|agents| (250..=420).contains(agents)), "one is run over: {firsts:?}");
    }

    #[test]
    fn home_comes_first_until_it_fails_and_again_after_a_while() {
        let (mut directory, mut chance, now) = (directory(), rand::rng(), Instant::now());
        directory.redirected("c:1".into(), now);
        assert_eq!(directory.next(now, &mut chance).as_deref(), Some("c:1"));
        directory.failed("c:1", now);
        assert_eq!(directory.unreachable_home(now), Some("c:1"));
        directory.served("a:1", now);
        assert_eq!(directory.home_to_try("a:1").as_deref(), Some("c:1"));
        let later = now + HOME_LEFT_ALONE;
        assert_eq!(directory.next(later, &mut chance).as_deref(), Some("c:1"));
        assert_eq!(directory.unreachable_home(later), None);
    }

    #[test]
    fn directors_that_disagree_do_not_send_the_agent_around_for_ever() {
        let (mut directory, now) = (directory(), Instant::now());
        for home in ["a:1", "b:1", "a:1"] {
            directory.redirected(home.into(), now);
            assert_eq!(directory.unreachable_home(now), None);
        }
        directory.redirected("b:1".into(), now);
        assert_eq!(directory.unreachable_home(now), Some("b:1"));
    }

    #[test]
    fn who_serves_without_being_asked_to_is_home() {
        let (mut directory, now) = (directory(), Instant::now());
        directory.redirected("c:1".into(), now);
        directory.served("b:1", now);
        assert_eq!(directory.home_to_try("b:1"), None);
    }

    #[test]
    fn an_empty_list_is_not_believed() {
        let mut directory = directory();
        assert_eq!(directory.learn(vec![]), Learned::Nothing);
        assert_eq!(directory.learn(vec!["d:1".into()]), Learned::News);
        assert_eq!(directory.next(Instant::now(), &mut rand::rng()).as_deref(), Some("d:1"));
    }
}
