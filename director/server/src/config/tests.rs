use super::*;

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
fn an_unknown_key_is_named() {
    let error = parse(&format!("colour = 1\n{GOOD}")).unwrap_err().to_string();
    assert!(error.contains("colour"), "{error}");
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

#[test]
fn the_sample_is_valid() {
    let sample = include_str!("../../../../deploy/directord.toml");
    let config = parse(sample).unwrap();
    assert_eq!(config.name, "director-1");
}
