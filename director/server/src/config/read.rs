//! From a file's text to values. Every complaint is collected: one look at the message is enough to put the file right.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use toml::{Table, Value};

use super::*;

/// Reads a configuration; relative paths begin at `base`.
pub(super) fn config(table: Table, base: &Path) -> Result<Config, Vec<String>> {
    let complaints = Complaints::default();
    let mut root = Section::new("", table, complaints.clone());
    let config = root_of(&mut root, base);
    root.end();
    let complaints = complaints.0.take();
    match config {
        Some(config) if complaints.is_empty() => Ok(config),
        _ => Err(complaints),
    }
}

/// What is wrong, a line each.
#[derive(Clone, Default)]
struct Complaints(Rc<RefCell<Vec<String>>>);

impl Complaints {
    fn add(&self, text: String) {
        self.0.borrow_mut().push(format!("  {text}"));
    }
}

/// One table of the file. Keys that nobody asked for are complained about at its end.
struct Section {
    path: String,
    table: Table,
    asked: Vec<&'static str>,
    complaints: Complaints,
}

impl Section {
    fn new(path: impl Into<String>, table: Table, complaints: Complaints) -> Self {
        Self { path: path.into(), table, asked: Vec::new(), complaints }
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Complains about a value.
    fn complain(&self, key: &str, value: impl std::fmt::Display, wanted: &str) {
        self.complaints.add(format!("{}: `{value}` should be {wanted}", self.name(key)));
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        self.table.remove(key)
    }

    fn text(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => {
                self.complain(key, shown(&other), "text in quotes");
                None
            }
        }
    }

    /// Takes a text that must be there.
    fn needed(&mut self, key: &'static str) -> Option<String> {
        if !self.table.contains_key(key) {
            self.asked.push(key);
            self.complaints.add(format!("{}: is missing", self.name(key)));
            return None;
        }
        self.text(key)
    }

    fn number(&mut self, key: &'static str, default: u32) -> u32 {
        match self.take(key) {
            None => default,
            Some(Value::Integer(number)) if u32::try_from(number).is_ok() => number as u32,
            Some(other) => {
                self.complain(key, shown(&other), "a whole number, 0 or more");
                default
            }
        }
    }

    fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let value = self.take(key)?;
        let texts =
            value.as_array().map(|all| all.iter().map(|text| text.as_str().map(str::to_owned)).collect());
        let texts: Option<Vec<String>> = texts.flatten();
        if texts.is_none() {
            self.complain(key, shown(&value), "a list of texts in quotes");
        }
        texts
    }

    fn flag(&mut self, key: &'static str, default: bool) -> bool {
        match self.take(key) {
            None => default,
            Some(Value::Boolean(yes)) => yes,
            Some(other) => {
                self.complain(key, shown(&other), "`true` or `false`");
                default
            }
        }
    }

    /// Takes one of a few words.
    fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)], default: T) -> T {
        let Some(text) = self.text(key) else { return default };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => *value,
            None => {
                let known: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
                self.complain(key, text, &known.join(" or "));
                default
            }
        }
    }

    fn section(&mut self, key: &'static str) -> Option<Section> {
        match self.take(key)? {
            Value::Table(table) => Some(Section::new(self.name(key), table, self.complaints.clone())),
            other => {
                self.complain(key, shown(&other), "a section of its own");
                None
            }
        }
    }

    /// Takes a section that must be there.
    fn needed_section(&mut self, key: &'static str) -> Option<Section> {
        if !self.table.contains_key(key) {
            self.asked.push(key);
            self.complaints.add(format!("[{}]: is missing", self.name(key)));
            return None;
        }
        self.section(key)
    }

    /// Takes a section that may be left out.
    fn optional_section(&mut self, key: &'static str) -> Section {
        let empty = Section::new(self.name(key), Table::new(), self.complaints.clone());
        self.section(key).unwrap_or(empty)
    }

    fn address(&mut self, key: &'static str) -> Option<SocketAddr> {
        let text = self.needed(key)?;
        let address = text.parse().ok();
        if address.is_none() {
            self.complain(key, text, "an address and a port, like 127.0.0.1:25555");
        }
        address
    }

    fn end(self) {
        for key in self.table.keys() {
            let known = self.asked.join(", ");
            self.complaints.add(format!("{}: there is no such key (known here: {known})", self.name(key)));
        }
    }
}

/// Returns a value as a complaint shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(yes) => yes.to_string(),
        Value::Datetime(at) => at.to_string(),
        Value::Array(_) => "[…]".into(),
        Value::Table(_) => "{…}".into(),
    }
}

fn root_of(root: &mut Section, base: &Path) -> Option<Config> {
    let name = root.needed("name");
    let valid = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if let Some(name) = name.as_ref().filter(|name| name.is_empty() || !name.chars().all(valid)) {
        root.complain("name", name, "letters, digits, `-`, `_` and `.`");
    }
    let data_dir = root.needed("data_dir");
    let timing = [("default", TimingProfile::Default), ("slow-disk", TimingProfile::SlowDisk)];
    let timing = root.word("timing", &timing, TimingProfile::Default);
    let stop_timeout = root.number("stop_timeout_seconds", STOP_TIMEOUT_SECONDS);
    let [api, peer, agent] = ["api", "peer", "agent"].map(|key| port(root.needed_section(key)?));
    let mut clouds = root.needed_section("cpi");
    let late_calls = clouds
        .as_mut()
        .map_or(LATE_CALLS_SECONDS, |clouds| clouds.number("late_calls_seconds", LATE_CALLS_SECONDS));
    let cpi = cpi(clouds, base);
    let (blobs, blob_port) = blobs(root.optional_section("blobs"));
    let snapshots = disks(root.optional_section("disks"));
    let ssh_gateway = root.section("ssh").and_then(ssh_gateway);
    let kek_file = root.needed_section("secrets").and_then(|mut secrets| {
        let kek_file = secrets.needed("kek_file");
        secrets.end();
        kek_file
    });
    let uaa = root.section("uaa").and_then(|section| uaa(section, base));
    let nats = root.section("nats").and_then(|section| nats(section, base));
    let (log_format, log_filter) = log(root.optional_section("log"));
    let metrics = root.section("metrics").and_then(|mut metrics| {
        let address = metrics.address("listen");
        metrics.end();
        address
    });
    let otlp = root.section("otlp").and_then(otlp);
    Some(Config {
        name: name?,
        data_dir: base.join(data_dir?),
        timing,
        stop_timeout: Duration::from_secs(stop_timeout.into()),
        api: api?,
        peer: peer?,
        agent: agent?,
        cpi: cpi?,
        late_calls: Duration::from_secs(late_calls.into()),
        blobs,
        blob_port,
        snapshots,
        ssh_gateway,
        kek_file: base.join(kek_file?),
        uaa,
        nats,
        log_format,
        log_filter,
        metrics,
        otlp,
        feature_level: state::command::FEATURE_LEVEL,
    })
}

fn disks(mut section: Section) -> SnapshotConfig {
    let enabled = section.flag("enable_snapshots", false);
    let text = section.text("daily_snapshots_at");
    let daily_at = text.as_deref().and_then(time_of_day);
    match &text {
        Some(text) if daily_at.is_none() => {
            section.complain("daily_snapshots_at", text, "a time of day, UTC, like 03:30");
        }
        Some(text) if !enabled => {
            let wanted = "left out, since `enable_snapshots` is not `true`";
            section.complain("daily_snapshots_at", text, wanted);
        }
        _ => {}
    }
    section.end();
    SnapshotConfig { taken: if enabled { Snapshots::On } else { Snapshots::Off }, daily_at }
}

fn ssh_gateway(mut section: Section) -> Option<SshGateway> {
    let (host, user) = (section.needed("gateway_host"), section.text("gateway_user"));
    section.end();
    host.map(|host| SshGateway { host, user })
}

/// Reads hours and minutes; none if that is not what it is.
fn time_of_day(text: &str) -> Option<Duration> {
    let (hours, minutes) = text.split_once(':')?;
    let two_digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    let [hours, minutes]: [u64; 2] =
        [hours, minutes].map(|part| if two_digits(part) { part.parse().unwrap_or(99) } else { 99 });
    (hours < 24 && minutes < 60).then(|| Duration::from_secs((hours * 60 + minutes) * 60))
}

fn port(mut section: Section) -> Option<Port> {
    let port = port_of(&mut section);
    section.end();
    port
}

fn port_of(section: &mut Section) -> Option<Port> {
    let listen = section.address("listen");
    let advertise = section.text("advertise");
    match (listen, advertise) {
        (listen, Some(text)) => {
            let port = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
            let good = port.is_some_and(|(host, _)| !host.is_empty());
            if !good {
                section.complain("advertise", &text, "a host and a port");
            }
            listen.filter(|_| good).map(|listen| Port { listen, advertise: text })
        }
        (Some(listen), None) if listen.ip().is_unspecified() => {
            section.complain("advertise", "", "given, since `listen` is a wildcard");
            None
        }
        (Some(listen), None) => Some(Port { listen, advertise: listen.to_string() }),
        (None, None) => None,
    }
}

fn cpi(section: Option<Section>, base: &Path) -> Option<Cpi> {
    let mut section = section?;
    let (kind, local, sim) = (section.needed("kind"), section.section("local"), section.section("sim"));
    let external = section.section("external").map(|mut external| {
        let program = external.needed("program");
        // 0 is what they are if nothing is said.
        let limits = CpiLimits {
            calls_at_once: NonZeroU32::new(external.number("calls_at_once", 0)),
            calls_per_minute: NonZeroU32::new(external.number("calls_per_minute", 0)),
        };
        external.end();
        program.map(|program| ExternalCpi { program: base.join(program), limits })
    });
    let local = local.map(|mut local| {
        let (root, isolation, agent) = (local.needed("root"), local.text("isolation"), local.text("agent"));
        let (isolation, kvm) = (isolation.unwrap_or_else(|| "auto".into()), local.flag("kvm", true));
        if let Err(wanted) = crate::clouds::isolation(&isolation) {
            local.complain("isolation", &isolation, &wanted);
        }
        let outbound = local.text("outbound").filter(|subnet| !subnet.is_empty());
        let outbound = outbound.and_then(|subnet| {
            let parsed = subnet.parse();
            parsed.map_err(|wanted: String| local.complain("outbound", &subnet, &wanted)).ok()
        });
        local.end();
        root.map(|root| LocalCpi {
            root: base.join(root),
            isolation,
            outbound,
            kvm,
            agent: agent.map_or_else(agent_beside_us, |path| base.join(path)),
        })
    });
    let sim = sim.map(|mut sim| {
        let socket = sim.needed("socket");
        sim.end();
        socket.map(|socket| SimCpi { socket: base.join(socket) })
    });
    let docker = section.section("docker").map(|docker| docker_cpi(docker, base));
    let Some(kind) = kind else {
        section.end();
        return None;
    };
    let cpi = match (kind.as_str(), local, sim, external, docker) {
        ("local", Some(local), ..) => local.map(Cpi::Local),
        ("sim", _, Some(sim), ..) => sim.map(Cpi::Sim),
        ("external", _, _, Some(external), _) => external.map(Cpi::External),
        ("docker", .., Some(docker)) => docker.map(Cpi::Docker),
        ("local" | "sim" | "external" | "docker", ..) => {
            section.complain("kind", &kind, "explained by a section [cpi.KIND]");
            None
        }
        _ => {
            section.complain("kind", &kind, "`local`, `docker`, `sim` or `external`");
            None
        }
    };
    section.end();
    cpi
}

fn docker_cpi(mut docker: Section, base: &Path) -> Option<DockerCpi> {
    let (socket, name) = (docker.text("socket"), docker.text("name"));
    let (root, agent) = (docker.needed("root"), docker.text("agent"));
    let name = name.unwrap_or_else(|| "directorate".into());
    if !cpi_docker::is_name(&name) {
        docker.complain("name", &name, cpi_docker::WANTED_NAME);
    }
    docker.end();
    root.map(|root| DockerCpi {
        socket: socket.unwrap_or_else(|| "/run/docker.sock".into()).into(),
        name,
        root: base.join(root),
        agent: agent.map_or_else(agent_beside_us, |path| base.join(path)),
    })
}

fn blobs(mut section: Section) -> (BlobLimits, Option<BlobPort>) {
    let limits = BlobLimits {
        upload_bytes_max: mebibytes(section.number("upload_mib_max", UPLOAD_MIB_MAX)),
        keep_free_bytes: mebibytes(section.number("keep_free_mib", KEEP_FREE_MIB)),
    };
    let is_served = section.table.contains_key("listen") || section.table.contains_key("advertise");
    let port = is_served.then(|| port_of(&mut section)).flatten();
    if !is_served {
        section.asked.extend(["listen", "advertise"]);
    }
    let dav_advertise = section.text("dav_advertise");
    section.end();
    (limits, port.map(|port| BlobPort { port, dav_advertise }))
}

fn log(mut section: Section) -> (LogFormat, String) {
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = section.word("format", &formats, LogFormat::Text);
    let filter = section.text("filter").unwrap_or_else(|| DEFAULT_FILTER.into());
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&filter) {
        section.complain("filter", &filter, &format!("a filter, like `info,raft=debug` ({error})"));
    }
    section.end();
    (format, filter)
}

fn uaa(mut section: Section, base: &Path) -> Option<UaaConfig> {
    let (url, urls) = (section.text("url"), section.texts("urls"));
    let urls = match (url, urls) {
        (Some(url), Some(_)) => {
            section.complain("url", url, "left out, since `urls` is there");
            Vec::new()
        }
        (Some(url), None) => vec![url],
        (None, urls) => urls.unwrap_or_default(),
    };
    if urls.is_empty() {
        section.complaints.add(format!("[{}]: needs `url` or `urls`, and not both", section.path));
    }
    for wrong in urls.iter().filter(|url| !is_trustworthy(url)) {
        section.complain("url", wrong, "a URL with https (http only on this machine), without `?`");
    }
    let mut file = |key| section.text(key).map(|path| base.join(path));
    let (public_key_file, symmetric_key_file) = (file("public_key_file"), file("symmetric_key_file"));
    let ca_file = file("ca_file");
    let has_key = public_key_file.is_some() || symmetric_key_file.is_some();
    let fetch_keys = section.flag("fetch_keys", !has_key);
    if !fetch_keys && !has_key {
        section.complain("fetch_keys", "false", "true, unless there is a key in a file");
    }
    if fetch_keys && ca_file.is_none() && urls.iter().any(|url| url.starts_with("https:")) {
        section
            .complaints
            .add(format!("{}: is missing: keys are only taken from whom it signs", section.name("ca_file")));
    }
    section.end();
    Some(UaaConfig { urls, public_key_file, symmetric_key_file, fetch_keys, ca_file })
}

/// Returns whether nobody can put keys of their own in the place of those that are asked for there.
fn is_trustworthy(url: &str) -> bool {
    let Ok(uri) = url.parse::<axum::http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let is_whole = !host.is_empty() && uri.query().is_none();
    is_whole && (uri.scheme_str() == Some("https") || (uri.scheme_str() == Some("http") && is_here))
}

fn nats(mut section: Section, base: &Path) -> Option<NatsConfig> {
    let urls = section.texts("urls").unwrap_or_default();
    if urls.is_empty() {
        section.complaints.add(format!("{}: is missing", section.name("urls")));
    }
    // Without a port, BOSH's agent ends.
    let is_good = |url: &str| {
        let place = url.strip_prefix("nats://").and_then(|place| place.rsplit_once(':'));
        place.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    for wrong in urls.iter().filter(|url| !is_good(url)) {
        section.complain("urls", wrong, "nats://, a host and a port");
    }
    let ca_file = section.needed("ca_file").map(|path| base.join(path));
    let mut file = |key| section.text(key).map(|path| base.join(path));
    let (users_file, server_pid_file) = (file("users_file"), file("server_pid_file"));
    let seconds = section.number("agent_certificate_seconds", AGENT_CERTIFICATE_SECONDS);
    if seconds < AGENT_CERTIFICATE_SECONDS_MIN {
        section.complain("agent_certificate_seconds", seconds, "a minute at least");
    }
    section.end();
    let agent_certificate = Duration::from_secs(seconds.into());
    Some(NatsConfig { urls, ca_file: ca_file?, users_file, server_pid_file, agent_certificate })
}

fn otlp(mut section: Section) -> Option<String> {
    let endpoint = section.needed("endpoint");
    let good = |text: &String| {
        let uri = text.parse::<axum::http::Uri>().ok();
        uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
    };
    if let Some(wrong) = endpoint.as_ref().filter(|text| !good(text)) {
        section.complain("endpoint", wrong, "a URL, like http://127.0.0.1:4317");
    }
    section.end();
    endpoint
}

fn mebibytes(count: u32) -> u64 {
    u64::from(count) << 20
}

fn agent_beside_us() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|us| Some(us.parent()?.join("dagent")));
    beside.unwrap_or_else(|| PathBuf::from("/usr/bin/dagent"))
}
