use std::collections::BTreeSet;

use super::*;

const SAMPLE: &str = include_str!("../../../../deploy/directord.toml");

const GOOD: &str = r#"
name = "d1"
data_dir = "data"
[api]
listen = "127.0.0.1:1"
[peer]
listen = "0.0.0.0:2"
advertise = "d1.example:2"
[agent]
listen = "127.0.0.1:3"
[cpi]
kind = "local"
[cpi.local]
root = "cloud"
[secrets]
kek_file = "kek"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/d/directord.toml"))
}

#[test]
fn paths_begin_at_the_file_s_folder() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.data_dir, Path::new("/etc/d/data"));
    assert_eq!(config.peer.advertise, "d1.example:2");
    assert_eq!(config.api.advertise, "127.0.0.1:1");
}

#[test]
fn unknown_keys_are_named_wherever_they_are() {
    let text = format!("colour = 1\n{GOOD}\n[loq]\nformat = \"text\"\n")
        .replace("listen = \"127.0.0.1:1\"", "listen = \"127.0.0.1:1\"\nlisten_too = 2")
        .replace("root = \"cloud\"", "root = \"cloud\"\nisolate = true");
    let error = parse(&text).unwrap_err().to_string();
    for expected in
        ["4 problem(s)", "  colour: there is no", "  loq: ", "  api.listen_too: ", "  cpi.local.isolate: "]
    {
        assert!(error.contains(expected), "{expected} in {error}");
    }
}

#[test]
fn whatever_a_part_of_us_would_refuse_later_is_refused_here() {
    let text = format!(
        "{GOOD}\n[log]\nformat = \"xml\"\nfilter = \"a=b=c\"\n[otlp]\nendpoint = \"collector\"\n\
         [blobs]\nkeep_free_mib = -1\n[metrics]\n"
    )
    .replace("root = \"cloud\"", "root = \"cloud\"\nisolation = \"best\"\noutbound = \"10.0.0.0/24\"")
    .replace("name = \"d1\"", "name = 1");
    let error = parse(&text).unwrap_err().to_string();
    let expected = [
        "8 problem(s)",
        "name: `1` should be text",
        "cpi.local.isolation: `best`",
        "cpi.local.outbound: `10.0.0.0/24`",
        "log.format: `xml` should be `text` or `json`",
        "log.filter: `a=b=c`",
        "otlp.endpoint: `collector`",
        "blobs.keep_free_mib: `-1`",
        "metrics.listen: is missing",
    ];
    for expected in expected {
        assert!(error.contains(expected), "{expected} in {error}");
    }
}

#[test]
fn snapshots_are_off_unless_said_otherwise() {
    let disks = |text: &str| parse(&format!("{GOOD}\n{text}")).map(|config| config.snapshots);
    assert_eq!(disks("").unwrap(), SnapshotConfig { taken: Snapshots::Off, daily_at: None });
    let on = "[disks]\nenable_snapshots = true\n";
    assert_eq!(disks(on).unwrap(), SnapshotConfig { taken: Snapshots::On, daily_at: None });
    let daily = disks(&format!("{on}daily_snapshots_at = \"23:05\"\n")).unwrap().daily_at;
    assert_eq!(daily, Some(Duration::from_secs((23 * 60 + 5) * 60)));
    for wrong in ["24:00", "3:30", "12:60", "+1:30", "noon", ""] {
        let error = disks(&format!("{on}daily_snapshots_at = \"{wrong}\"\n")).unwrap_err().to_string();
        assert!(error.contains("disks.daily_snapshots_at: ") && error.contains("a time of day"), "{error}");
    }
    let error = disks("[disks]\ndaily_snapshots_at = \"03:30\"\n").unwrap_err().to_string();
    assert!(error.contains("since `enable_snapshots` is not `true`"), "{error}");
}

#[test]
fn ssh_clients_are_told_of_a_gateway_where_there_is_one() {
    let gateway = |text: &str| parse(&format!("{GOOD}\n{text}")).map(|config| config.ssh_gateway);
    assert_eq!(gateway("").unwrap(), None);
    let told = gateway("[ssh]\ngateway_host = \"gw\"\ngateway_user = \"vcap\"\n").unwrap().unwrap();
    assert_eq!((told.host.as_str(), told.user.as_deref()), ("gw", Some("vcap")));
    assert_eq!(gateway("[ssh]\ngateway_host = \"gw\"\n").unwrap().unwrap().user, None);
    let error = gateway("[ssh]\ngateway_user = \"vcap\"\n").unwrap_err().to_string();
    assert!(error.contains("ssh.gateway_host: is missing"), "{error}");
}

#[test]
fn what_is_missing_is_named_together() {
    let error = parse("name = \"d1\"\n[api]\n").unwrap_err().to_string();
    for expected in
        ["data_dir: is missing", "api.listen: is missing", "[peer]: is missing", "[secrets]: is missing"]
    {
        assert!(error.contains(expected), "{expected} in {error}");
    }
}

#[test]
fn all_complaints_come_together() {
    let text = GOOD
        .replace("127.0.0.1:1\"", "nowhere\"")
        .replace("advertise = \"d1.example:2\"", "")
        .replace("kind = \"local\"", "kind = \"cloud\"");
    let error = parse(&text).unwrap_err().to_string();
    for expected in ["3 problem(s)", "api.listen: `nowhere`", "peer.advertise", "cpi.kind: `cloud`"] {
        assert!(error.contains(expected), "{expected} in {error}");
    }
}

/// Every key that is read, as complaints about strange ones list them, by section.
fn known_keys() -> BTreeSet<String> {
    let text = "name = \"d\"\ndata_dir = \"d\"\nx = 1\n[api]\nx = 1\n[peer]\nx = 1\n[agent]\nx = 1\n[cpi]\nkind = \"sim\"\nx = 1\n\
                [cpi.local]\nx = 1\n[cpi.external]\nx = 1\n[cpi.docker]\nx = 1\n[cpi.sim]\nx = 1\n[blobs]\nx = 1\n[disks]\nx = 1\n[ssh]\nx = 1\n[secrets]\nx = 1\n[uaa]\nx = 1\n[nats]\nx = 1\n[log]\nx = 1\n[metrics]\nx = 1\n[otlp]\nx = 1\n";
    let ConfigError::Invalid { complaints, .. } = parse(text).unwrap_err() else { panic!("it is TOML") };
    let listed = |line: &String| {
        let (key, known) = line.trim().split_once(": there is no such key (known here: ")?;
        let section = key.strip_suffix('x').expect("the strange key").to_owned();
        let known = known.trim_end_matches(')').split(", ").map(move |key| format!("{section}{key}"));
        Some(known.collect::<Vec<_>>())
    };
    let all: BTreeSet<String> = complaints.iter().filter_map(listed).flatten().collect();
    // A section is explained by its keys.
    let is_section = |key: &String| all.iter().any(|other| other.starts_with(&format!("{key}.")));
    all.iter().filter(|key| !is_section(key)).cloned().collect()
}

/// Every key that the sample shows, also those that it shows as comments.
fn keys_of_the_sample() -> BTreeSet<String> {
    let (mut section, mut keys) = (String::new(), BTreeSet::new());
    for line in SAMPLE.lines().map(|line| line.strip_prefix('#').unwrap_or(line)) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.contains(' ')) {
            keys.insert(format!("{section}{key}"));
        }
    }
    keys
}

#[test]
fn the_sample_shows_every_key_and_no_other() {
    let known = known_keys();
    assert!(known.len() > 20, "{known:?}");
    assert_eq!(keys_of_the_sample(), known);
}

#[test]
fn every_key_of_the_sample_is_explained() {
    let mut explained = false;
    for line in SAMPLE.lines() {
        // A comment explains the keys up to the next empty line.
        match line {
            "" => explained = false,
            comment if comment.starts_with("# ") => explained = true,
            section if section.starts_with('[') => {}
            key => assert!(explained, "`{key}` is not explained"),
        }
    }
}

#[test]
fn the_sample_is_valid() {
    let config = parse(SAMPLE).unwrap();
    assert_eq!((config.name.as_str(), config.otlp), ("director-1", None));
}

#[test]
fn a_uaa_is_named_once_and_its_keys_come_from_where_nobody_else_can_put_some() {
    let with = |section: &str| parse(&format!("{GOOD}\n[uaa]\n{section}"));
    let uaa = with("url = \"https://uaa.example:8443\"\nca_file = \"ca.pem\"\n").unwrap().uaa.unwrap();
    assert_eq!((uaa.urls.as_slice(), uaa.fetch_keys), (&["https://uaa.example:8443".to_owned()][..], true));
    assert_eq!(uaa.ca_file.as_deref(), Some(Path::new("/etc/d/ca.pem")));
    let uaa =
        with("urls = [\"https://a\", \"https://b\"]\npublic_key_file = \"uaa.pem\"\n").unwrap().uaa.unwrap();
    assert_eq!((uaa.urls.len(), uaa.fetch_keys), (2, false));
    assert!(with("url = \"http://127.0.0.1:8080/uaa\"\n").is_ok());
    for (section, says) in [
        ("", "needs `url` or `urls`"),
        (
            "url = \"https://a\"\nurls = [\"https://b\"]\nca_file = \"c\"\n",
            "uaa.url: `https://a` should be left out",
        ),
        ("urls = []\n", "needs `url` or `urls`"),
        ("urls = [1]\n", "should be a list of texts"),
        ("url = \"http://uaa.example\"\n", "a URL with https"),
        ("url = \"uaa.example\"\n", "a URL with https"),
        ("url = \"https://uaa.example\"\n", "uaa.ca_file: is missing"),
        ("url = \"https://a\"\nfetch_keys = false\n", "unless there is a key in a file"),
        ("url = \"https://a\"\nfetch_keys = \"yes\"\nca_file = \"c\"\n", "should be `true` or `false`"),
    ] {
        let error = with(section).unwrap_err().to_string();
        assert!(error.contains(says), "{says} in {error}");
    }
}

#[test]
fn a_bus_without_a_port_would_end_the_agents_that_are_told_of_it() {
    let with = |section: &str| parse(&format!("{GOOD}\n[nats]\n{section}"));
    let nats = with("urls = [\"nats://10.0.0.6:4222\"]\nca_file = \"ca.pem\"\n").unwrap().nats.unwrap();
    assert_eq!(nats.ca_file, Path::new("/etc/d/ca.pem"));
    assert_eq!((nats.users_file, nats.server_pid_file), (None, None));
    assert_eq!(nats.agent_certificate, Duration::from_secs(730 * 24 * 3600));
    for (section, says) in [
        ("ca_file = \"c\"\n", "nats.urls: is missing"),
        ("urls = [\"nats://10.0.0.6\"]\nca_file = \"c\"\n", "nats://, a host and a port"),
        ("urls = [\"https://a:1\"]\nca_file = \"c\"\n", "nats://, a host and a port"),
        ("urls = [\"nats://a:4222\"]\n", "nats.ca_file: is missing"),
        ("urls = [\"nats://a:1\"]\nca_file = \"c\"\nagent_certificate_seconds = 59\n", "a minute at least"),
    ] {
        let error = with(section).unwrap_err().to_string();
        assert!(error.contains(says), "{says} in {error}");
    }
}

#[test]
fn the_port_of_blobs_is_closed_unless_it_is_named() {
    let with = |keys: &str| parse(&format!("{GOOD}\n[blobs]\n{keys}"));
    assert_eq!(with("").unwrap().blob_port, None);
    let open = with("listen = \"0.0.0.0:25250\"\nadvertise = \"d1.example:25250\"\n").unwrap();
    let port = open.blob_port.clone().unwrap().port;
    assert_eq!((port.listen.port(), port.advertise.as_str()), (25250, "d1.example:25250"));
    assert!(crate::commands::own_names(&open).hosts.contains(&"d1.example".to_owned()));
    let shared = "listen = \"127.0.0.1:1\"\ndav_advertise = \"blobs.example:1\"\n";
    assert!(crate::commands::own_names(&with(shared).unwrap()).hosts.contains(&"blobs.example".to_owned()));
    let blind = with("listen = \"0.0.0.0:25250\"\n").unwrap_err().to_string();
    assert!(blind.contains("blobs.advertise: `` should be given"), "{blind}");
    let deaf = with("advertise = \"d1.example:25250\"\n").unwrap_err().to_string();
    assert!(deaf.contains("blobs.listen: is missing"), "{deaf}");
}
