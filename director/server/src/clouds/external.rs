//! Clouds behind executables: the default one, if the configuration says so, and those of the CPI configs, which anybody may
//! change at any time.
//!
//! Configs are read anew for each call, so that a change counts at once on every replica; what was learned of an executable
//! is kept for as long as it is told the same.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cpi_external::{ExternalCpi, Limits, Pace, Program};
use executor::clouds::NoCloud;
use executor::ports::Vault;
use model::cpi_config::{CpiConfigs, CpiEntry, CpiLimits};
use model::fields::Checked;
use model::interpolate::resolve_value;
use model::task::TaskError;
use model::{CpiName, VariableName};
use serde_json::{Map, Value};
use state::State;
use state::log::CommandLog;

/// All of them.
pub struct External {
    log: Arc<dyn CommandLog>,
    vault: Arc<dyn Vault>,
    /// Those that were called, by name.
    known: Mutex<BTreeMap<CpiName, ExternalCpi>>,
}

impl External {
    /// Starts with none known.
    pub fn new(log: Arc<dyn CommandLog>, vault: Arc<dyn Vault>) -> Self {
        Self { log, vault, known: Mutex::default() }
    }

    /// Returns the names in the CPI configs, in their order; nothing where there are none.
    pub fn names(&self) -> Vec<CpiName> {
        // One that can't be read has no names; whoever deploys is told why.
        let configs = self.configs().unwrap_or_default();
        configs.entries().iter().map(|entry| entry.name.clone()).collect()
    }

    /// Returns a cloud of the CPI configs that has, or had, this name.
    pub fn get(&self, name: &CpiName) -> Option<Result<ExternalCpi, NoCloud>> {
        let unusable = |error: TaskError| NoCloud::Unusable { cpi: name.clone(), why: error.message };
        let configs = match self.configs() {
            Ok(configs) => configs,
            Err(error) => return Some(Err(unusable(error))),
        };
        let entry = configs.find(name)?;
        let properties = match self.resolved(entry) {
            Ok(properties) => properties,
            Err(error) => return Some(Err(unusable(error))),
        };
        Some(Ok(self.cloud(&entry.name, entry.program().into(), properties, entry.limits)))
    }

    /// Returns the cloud that an executable serves.
    pub fn cloud(
        &self,
        name: &CpiName,
        path: PathBuf,
        properties: Map<String, Value>,
        limits: CpiLimits,
    ) -> ExternalCpi {
        let view = self.log.view();
        let director_uuid = State::new(&*view).cluster().map(|c| c.director_uuid).unwrap_or_default();
        let program = Program { path, guard: guard(), director_uuid, properties };
        let pace = pace(limits);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(name) {
            Some(cloud) if *cloud.program() == program && cloud.pace().is_as(&pace) => cloud.clone(),
            _ => {
                let cloud = ExternalCpi::new(program, Limits::default(), pace);
                known.insert(name.clone(), cloud.clone());
                cloud
            }
        }
    }

    fn configs(&self) -> Checked<CpiConfigs> {
        let view = self.log.view();
        State::new(&*view).cpi_configs()
    }

    /// Puts values in the place of placeholders: the newest, since a CPI config belongs to no deployment.
    fn resolved(&self, entry: &CpiEntry) -> Checked<Map<String, Value>> {
        let view = self.log.view();
        let state = State::new(&*view);
        let lookup = |name: &str| {
            if !name.starts_with('/') {
                let text = format!("variable '{name}' needs an absolute name here, with a slash before it");
                return Err(TaskError::plain(text));
            }
            let variable = state.latest_variable(&VariableName::new(name));
            let variable = variable.ok_or_else(|| {
                TaskError::plain(format!("there is no variable '{name}', which its config names"))
            })?;
            self.vault.open(name, &variable.sealed).map_err(|error| TaskError::plain(error.to_string()))
        };
        match resolve_value(&Value::Object(entry.properties.clone()), &lookup)? {
            Value::Object(properties) => Ok(properties),
            _ => Ok(Map::new()),
        }
    }
}

fn pace(limits: CpiLimits) -> Pace {
    let mut pace = Pace { calls_per_minute: limits.calls_per_minute, ..Pace::default() };
    if let Some(calls) = limits.calls_at_once {
        pace.calls_at_once = calls.get().try_into().unwrap_or(usize::MAX);
    }
    pace
}

/// We ourselves, under another name.
fn guard() -> Vec<OsString> {
    let own = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    vec![own.into(), cpi_external::guard::NAME.into()]
}

#[cfg(test)]
mod tests {
    use state::command::Command;

    use super::*;
    use crate::secrets::KekVault;
    use crate::test_support::replica::Replica;

    async fn with_config(content: &str) -> (Replica, External) {
        let replica = Replica::start().await;
        put(&replica, content).await;
        let vault = Arc::new(KekVault::new(replica.kek.clone()));
        let external = External::new(Arc::new(replica.log.clone()), vault);
        (replica, external)
    }

    async fn put(replica: &Replica, content: &str) {
        let (kind, name) = ("cpi".into(), "default".into());
        let put = Command::ConfigPut { kind, name, content: content.into(), expected_latest: None };
        replica.must(put).await;
    }

    fn told(external: &External, name: &str) -> String {
        match external.get(&name.into()) {
            Some(Err(none)) => none.to_string(),
            Some(Ok(cloud)) => format!("there is {:?}", cloud.program().path),
            None => "nothing".into(),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_change_of_the_config_counts_at_once_and_what_was_learned_is_kept() {
        let (replica, external) =
            with_config("cpis:\n- {name: b, type: two, properties: {region: x}}\n- {name: a, type: one}\n")
                .await;
        assert_eq!(external.names(), [CpiName::new("b"), CpiName::new("a")]);
        let program = external.get(&"b".into()).unwrap().unwrap().program().clone();
        assert_eq!(program.path, PathBuf::from("/var/vcap/jobs/two_cpi/bin/cpi"));
        assert_eq!((program.director_uuid.as_str(), &program.properties["region"]), ("d-uuid", &"x".into()));
        let pace = |name: &str| *external.get(&name.into()).unwrap().unwrap().pace();
        assert_eq!((pace("b").calls_at_once, pace("b").calls_per_minute), (32, None));
        put(
            &replica,
            "cpis:\n- {name: c, type: two, exec_path: /c, migrated_from: [{name: b}], limits: {calls_at_once: 3, calls_per_minute: 60}}\n",
        )
        .await;
        assert_eq!((pace("c").calls_at_once, pace("c").calls_per_minute.map(|n| n.get())), (3, Some(60)));
        assert_eq!(external.names(), [CpiName::new("c")]);
        assert_eq!(told(&external, "b"), "there is \"/c\"");
        assert_eq!(told(&external, "a"), "nothing");
        replica.stop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_cannot_be_used_says_why() {
        let (replica, external) =
            with_config("cpis:\n- {name: a, type: t, properties: {key: ((/none)), other: ((short))}}\n")
                .await;
        let why = told(&external, "a");
        assert!(why.starts_with("CPI 'a' cannot be used: "), "{why}");
        assert!(
            why.contains("there is no variable '/none'") && why.contains("'short' needs an absolute"),
            "{why}"
        );
        put(&replica, "cpis: 5").await;
        assert!(told(&external, "a").contains("'cpis'"), "{}", told(&external, "a"));
        assert_eq!(external.names(), [] as [CpiName; 0]);
        replica.stop().await;
    }
}
