//! `directord init`: the first replica of a new fleet.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use model::{NodeId, UserName};
use rcgen::KeyPair;
use serde_json::json;
use state::command::Command;
use state::records::{FleetSecrets, User};

use super::alone::{Alone, Fleet, member_of};
use crate::auth::hash_password;
use crate::commands::own_names;
use crate::config::Config;
use crate::files::check_owner;
use crate::identity::{Authority, IdentityFiles, NodeIdentity};
use crate::lock::DataLock;
use crate::secrets::{Kek, KekVault};
use crate::tls::TlsIdentity;
use crate::wire::AUTHORITY_SECRET;

/// The first replica's number.
const FIRST: NodeId = NodeId(1);

/// The user that a new fleet has.
const ADMIN: &str = "admin";

/// What a new fleet is called, unless said otherwise.
pub const DEFAULT_NAME: &str = "directorate";

/// Makes a fleet of one. Prints the admin's password, once.
pub async fn init(config: &Config, fleet: &str, profile: Option<&Path>) -> anyhow::Result<()> {
    let files = IdentityFiles::new(&config.data_dir);
    anyhow::ensure!(
        !files.exist(),
        "`{}` belongs to a fleet already: remove it if that fleet is gone, or just `directord run`",
        config.data_dir.display()
    );
    check_owner(&config.data_dir)?;
    let _lock = DataLock::take(&config.data_dir)?;
    set_aside_unfinished(&config.data_dir)?;
    let kek =
        if config.kek_file.exists() { Kek::load(&config.kek_file)? } else { new_kek(&config.kek_file)? };
    let (authority, authority_key) = Authority::create(fleet)?;
    let key = KeyPair::generate().context("make this replica's key")?;
    let issued = authority.issue_replica(FIRST, &own_names(config), &key)?;
    let identity =
        NodeIdentity { cluster_id: uuid::Uuid::new_v4().to_string(), node: FIRST, peers: Vec::new() };
    let password = new_password();
    let secrets = FleetSecrets {
        authority_pem: authority.certificate_pem().to_owned(),
        authority_key: KekVault::new(kek).seal_bytes(AUTHORITY_SECRET, authority_key.as_bytes()),
    };
    let tls = TlsIdentity::new(&issued.chain_pem, &key.serialize_pem(), authority.certificate_pem())?;
    let commands = first_entries(config, fleet, &identity, secrets, &password);
    let profile_text = json!({
        "endpoints": [config.api.advertise],
        "ca_pem": authority.certificate_pem(),
        "user": ADMIN,
        "password": password,
    });
    // Before there is a fleet: where it can't be written, nobody would ever learn the password.
    let profile = profile.map(|path| StagedProfile::write(path, &profile_text)).transpose()?;
    let alone = Alone::start(config, &identity, Arc::new(tls), Fleet::New).await?;
    for command in commands {
        alone.must(command).await?;
    }
    alone.stop().await;
    // Last: with the identity there, the folder counts as initialised; a crash before leaves `init` to be run again.
    files.store(&identity, &key.serialize_pem(), &issued.chain_pem, authority.certificate_pem())?;
    let profile = profile.and_then(|staged| staged.keep().ok());
    tell(config, fleet, &password, profile.as_deref());
    Ok(())
}

/// Moves away what an `init` left that died before it stored the identity: a fleet that nobody can log in to. Moved and
/// not deleted, in case it is something else.
pub(super) fn set_aside_unfinished(data_dir: &Path) -> anyhow::Result<()> {
    let raft = data_dir.join("raft");
    if !raft.exists() {
        return Ok(());
    }
    let aside = data_dir.join(format!("raft.unfinished-{}", uuid::Uuid::new_v4()));
    std::fs::rename(&raft, &aside).with_context(|| format!("move {} out of the way", raft.display()))?;
    println!("An earlier `init` had not ended; what it left is in {}.", aside.display());
    Ok(())
}

fn new_kek(path: &Path) -> anyhow::Result<Kek> {
    let kek = Kek::generate();
    kek.store(path)?;
    Ok(kek)
}

fn new_password() -> String {
    use rand::Rng as _;
    let mut chance = rand::rng();
    (0..24).map(|_| char::from(chance.sample(rand::distr::Alphanumeric))).collect()
}

fn first_entries(
    config: &Config,
    fleet: &str,
    identity: &NodeIdentity,
    secrets: FleetSecrets,
    password: &str,
) -> Vec<Command> {
    let user = User {
        name: UserName::new(ADMIN),
        password_hash: hash_password(password),
        scopes: BTreeSet::from(["bosh.admin".to_owned()]),
    };
    vec![
        Command::ClusterInit {
            cluster_id: identity.cluster_id.clone(),
            director_name: fleet.to_owned(),
            director_uuid: uuid::Uuid::new_v4().to_string(),
            secrets,
        },
        Command::MemberPut { member: member_of(config, FIRST) },
        Command::UserPut { user },
    ]
}

/// The admin's login, on disk beside its place: it gets there once the fleet exists, and goes if none comes to be.
struct StagedProfile {
    place: PathBuf,
    staged: tempfile::NamedTempFile,
}

impl StagedProfile {
    fn write(path: &Path, profile: &serde_json::Value) -> anyhow::Result<Self> {
        let place = if path.is_dir() { path.join("profile.json") } else { path.to_owned() };
        let staged = || -> anyhow::Result<tempfile::NamedTempFile> {
            let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder)?;
            // Readable by its owner only, as all temporary files.
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(&serde_json::to_vec_pretty(profile)?)?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        let staged = staged().with_context(|| format!("write the profile {}", place.display()))?;
        Ok(Self { place, staged })
    }

    /// Puts it in its place and returns that.
    fn keep(self) -> std::io::Result<PathBuf> {
        self.staged.persist(&self.place).map_err(|error| error.error)?;
        Ok(self.place)
    }
}

fn tell(config: &Config, fleet: &str, password: &str, profile: Option<&Path>) {
    println!("Fleet '{fleet}' has its first replica, '{}'.", config.name);
    match profile {
        Some(path) => println!("The admin's login is in {} (DCTL_PROFILE).", path.display()),
        None => println!("User: {ADMIN}\nPassword: {password}\nThe password is shown this once."),
    }
    println!(
        "Keep a copy of {} elsewhere: without it, a backup's secrets can't be read.",
        config.kek_file.display()
    );
    println!("Next: `directord run`, then `dctl cluster join-token` for each further replica.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_in_its_place_whole_or_not_at_all() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("new/profile.json");
        let login = json!({ "password": "secret" });
        drop(StagedProfile::write(&place, &login).unwrap());
        assert!(!place.exists(), "no fleet came to be");
        assert_eq!(std::fs::read_dir(place.parent().unwrap()).unwrap().count(), 0, "and nothing is left");
        assert_eq!(StagedProfile::write(&place, &login).unwrap().keep().unwrap(), place);
        assert!(std::fs::read_to_string(&place).unwrap().contains("secret"));
        assert_eq!(std::fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(StagedProfile::write(Path::new("/proc/no/profile.json"), &login).is_err());
    }

    #[test]
    fn what_an_init_left_that_died_is_moved_and_not_deleted() {
        let folder = tempfile::tempdir().unwrap();
        set_aside_unfinished(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        std::fs::create_dir(folder.path().join("raft")).unwrap();
        std::fs::write(folder.path().join("raft/log"), "entries").unwrap();
        set_aside_unfinished(folder.path()).unwrap();
        assert!(!folder.path().join("raft").exists());
        let aside = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        assert_eq!(std::fs::read_to_string(aside.join("log")).unwrap(), "entries");
    }
}
