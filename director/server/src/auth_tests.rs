use state::command::Command;
use state::log::{MemoryLog, Proposal};
use state::records::{FleetSecrets, Sealed};

use super::*;
use crate::secrets::{Kek, Mint};

#[test]
fn headers_are_read() {
    let basic = format!("Basic {}", STANDARD.encode("admin:pa:ss"));
    match read(&basic) {
        Some(Login::Password { name, password }) => {
            assert_eq!((name.as_str(), password.as_str()), ("admin", "pa:ss"))
        }
        _ => panic!("{basic}"),
    }
    match read("bearer du1.id.secret") {
        Some(Login::Token { id, secret }) => assert_eq!((id.as_str(), secret.as_str()), ("id", "secret")),
        _ => panic!("a token"),
    }
    for wrong in ["Basic !!", "Bearer x", "Bearer dj1.id.secret", "Bearer du1..x", "Digest x", "du1.a.b", ""]
    {
        assert!(read(wrong).is_none(), "{wrong}");
    }
}

fn login(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

fn apply(log: &MemoryLog, command: Command) {
    log.apply(Proposal::own(command)).outcome.accepted().unwrap();
}

fn put(log: &MemoryLog, name: &str, password: &str, scopes: &[&str]) {
    let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    let user = User { name: name.into(), password_hash: hash_password(password), scopes };
    apply(log, Command::UserPut { user });
}

fn empty() -> (Arc<MemoryLog>, Doorkeeper) {
    let log = Arc::new(MemoryLog::new());
    (log.clone(), Doorkeeper::new(Service::new(log)))
}

fn door() -> (Arc<MemoryLog>, Doorkeeper) {
    let (log, door) = empty();
    apply(&log, init());
    put(&log, "ann", "right", &["bosh.read"]);
    (log, door)
}

fn init() -> Command {
    let secrets = FleetSecrets { authority_pem: String::new(), authority_key: Sealed(Vec::new()) };
    Command::ClusterInit {
        cluster_id: "c".into(),
        director_name: "d".into(),
        director_uuid: "u".into(),
        secrets,
    }
}

async fn ask(door: &Doorkeeper, shown: &str) -> Result<Caller, ServiceError> {
    door.caller(Some(shown).filter(|shown| !shown.is_empty()), None).await
}

#[tokio::test]
async fn only_the_right_password_of_a_known_user_opens() {
    let (_, door) = door();
    let caller = ask(&door, &login("ann", "right")).await.unwrap();
    assert_eq!((caller.user.as_str(), caller.scopes.contains("bosh.read")), ("ann", true));
    for (name, password) in [("ann", "wrong"), ("ann", ""), ("bob", "right"), ("bob", ""), ("", "")] {
        let refused = ask(&door, &login(name, password)).await;
        assert_eq!(refused, Err(ServiceError::Unauthenticated), "{name}:{password}");
    }
    assert_eq!(ask(&door, "").await, Err(ServiceError::Unauthenticated));
}

#[tokio::test]
async fn what_is_remembered_ends_with_the_password_the_user_and_the_scopes() {
    let (log, door) = door();
    ask(&door, &login("ann", "right")).await.unwrap();
    assert_eq!(door.lock().len(), 1);
    put(&log, "ann", "new", &["bosh.admin"]);
    assert_eq!(ask(&door, &login("ann", "right")).await, Err(ServiceError::Unauthenticated));
    assert!(ask(&door, &login("ann", "new")).await.unwrap().scopes.contains("bosh.admin"));
    apply(&log, Command::UserRemove { name: "ann".into() });
    assert_eq!(ask(&door, &login("ann", "new")).await, Err(ServiceError::Unauthenticated));
}

#[tokio::test]
async fn a_token_opens_until_it_ends_is_revoked_or_its_user_may_less() {
    let (log, door) = door();
    put(&log, "ann", "right", &["bosh.admin", "bosh.read"]);
    let mint = Mint::new(&Kek::generate());
    let give = |scopes: &[&str], life_ms: i64| {
        let minted = mint.user_token(&"ann".into(), None);
        let token = UserToken {
            id: minted.id.clone(),
            user: "ann".into(),
            hash: minted.hash.clone(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            note: String::new(),
            created_at: now(),
            expires_at: model::Timestamp(now().0 + life_ms),
        };
        apply(&log, Command::UserTokenPut { token });
        minted
    };
    let bearer = |text: &str| format!("Bearer {text}");
    let good = give(&["bosh.admin"], 60_000);
    let caller = ask(&door, &bearer(&good.text)).await.unwrap();
    assert_eq!((caller.user.as_str(), caller.scopes.len()), ("ann", 1));
    assert!(caller.scopes.contains("bosh.admin"), "what the token may, not all that Ann may");

    let late = give(&["bosh.admin"], -1);
    let mixed = format!("{}.x", good.text.rsplit_once('.').unwrap().0);
    let unknown = mint.user_token(&"ann".into(), None).text;
    for refused in [&late.text, &mixed, &unknown] {
        assert_eq!(ask(&door, &bearer(refused)).await, Err(ServiceError::Unauthenticated), "{refused}");
    }
    put(&log, "ann", "right", &["bosh.read"]);
    assert_eq!(ask(&door, &bearer(&good.text)).await.unwrap().scopes.len(), 0, "Ann is no admin any more");
    apply(&log, Command::UserTokenRemove { id: good.id });
    assert_eq!(ask(&door, &bearer(&good.text)).await, Err(ServiceError::Unauthenticated));
}

#[tokio::test]
async fn a_crowd_at_the_door_is_let_in_a_few_at_a_time() {
    let (_, door) = door();
    let all = door.room.clone().acquire_many_owned(CHECKED_AT_ONCE as u32).await.unwrap();
    let credentials = login("ann", "right");
    let asking = ask(&door, &credentials);
    tokio::pin!(asking);
    assert!(futures::poll!(&mut asking).is_pending(), "nothing is hashed while the room is full");
    assert_eq!(door.lock().len(), 0);
    drop(all);
    asking.await.unwrap();
    // Whoever is known does not wait in line.
    let _all = door.room.clone().acquire_many_owned(CHECKED_AT_ONCE as u32).await.unwrap();
    assert!(matches!(
        futures::poll!(std::pin::pin!(ask(&door, &credentials))),
        std::task::Poll::Ready(Ok(_))
    ));
}

#[tokio::test]
async fn a_crowd_beyond_all_bounds_is_told_to_come_back() {
    let (_, door) = door();
    let known = login("ann", "right");
    ask(&door, &known).await.unwrap();
    let all = door.waiting.clone().acquire_many_owned(WAITING_MAX as u32).await.unwrap();
    let refused = ask(&door, &login("ann", "wrong")).await;
    assert!(matches!(refused, Err(ServiceError::Busy(_))), "{refused:?}");
    ask(&door, &known).await.unwrap();
    drop(all);
    assert_eq!(ask(&door, &login("ann", "wrong")).await, Err(ServiceError::Unauthenticated));
}

#[tokio::test]
async fn a_replica_that_knows_nothing_yet_sends_nobody_away() {
    let (log, door) = empty();
    assert_eq!(ask(&door, &login("ann", "right")).await, Err(ServiceError::NoState));
    apply(&log, init());
    assert_eq!(ask(&door, &login("ann", "right")).await, Err(ServiceError::Unauthenticated));
}

/// A replica that lags: what was written is here once somebody has waited for it.
struct Lagging {
    log: MemoryLog,
    behind: Mutex<Option<Command>>,
}

impl state::log::CommandLog for Lagging {
    fn propose(
        &self,
        proposal: Proposal,
    ) -> state::log::BoxFuture<'_, Result<state::log::Committed, state::log::LogError>> {
        self.log.propose(proposal)
    }

    fn read_barrier(&self) -> state::log::BoxFuture<'_, Result<model::Revision, state::log::LogError>> {
        if let Some(command) = self.behind.lock().unwrap().take() {
            apply(&self.log, command);
        }
        self.log.read_barrier()
    }

    fn view(&self) -> state::log::View {
        self.log.view()
    }

    fn revision(&self) -> model::Revision {
        self.log.revision()
    }

    fn changed(&self, after: model::Revision) -> state::log::BoxFuture<'_, model::Revision> {
        self.log.changed(after)
    }
}

#[tokio::test]
async fn a_replica_that_lags_waits_before_it_sends_somebody_away() {
    let log = MemoryLog::new();
    apply(&log, init());
    let user = User {
        name: "new".into(),
        password_hash: hash_password("right"),
        scopes: ["bosh.read".to_owned()].into(),
    };
    let behind = Mutex::new(Some(Command::UserPut { user }));
    let door = Doorkeeper::new(Service::new(Arc::new(Lagging { log, behind })));
    ask(&door, &login("new", "right")).await.unwrap();
    assert_eq!(ask(&door, &login("new", "wrong")).await, Err(ServiceError::Unauthenticated));
}
