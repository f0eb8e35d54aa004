use clap::Parser as _;

use super::*;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    connection: Connection,
}

/// Reads flags as if none of `DCTL_*` was set.
fn flags(line: &str) -> Connection {
    Line::parse_from(std::iter::once("dctl").chain(line.split_whitespace())).connection
}

fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Utf8PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::try_from(folder.path().to_owned()).unwrap();
    for (name, text) in files {
        let file = path.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    (folder, path)
}

fn login(connection: &Connection, profile: &Profile, environment: &Environment) -> Result<String, String> {
    use tonic::service::Interceptor as _;
    let mut login = connection.login(profile, environment).map_err(|error| chain(&error))?;
    let request = login.call(tonic::Request::new(())).unwrap();
    Ok(request
        .metadata()
        .get("authorization")
        .map_or(String::new(), |value| value.to_str().unwrap().to_owned()))
}

const TOML: &str = "endpoints = ['a:1', 'b:2']\nca_file = 'ca.pem'\nuser = 'admin'\npassword = 'geheim'\n";

#[test]
fn a_profile_is_toml_or_json_a_file_or_a_folder() {
    let json = r#"{"endpoints": ["a:1", "b:2"], "ca_file": "ca.pem", "user": "admin", "password": "geheim"}"#;
    for (name, text) in [("profile.toml", TOML), ("profile.json", json), ("config.toml", TOML)] {
        let (_keep, path) = folder(&[(name, text)]);
        for place in [path.clone(), path.join(name)] {
            let profile = Profile::read(&place).unwrap();
            assert_eq!(profile.endpoints, ["a:1", "b:2"]);
            assert_eq!(profile.ca_file, Some(path.join("ca.pem")), "relative to the profile");
            assert_eq!(
                (profile.user.as_deref(), profile.password.as_deref()),
                (Some("admin"), Some("geheim"))
            );
        }
    }
}

#[test]
fn a_wrong_profile_is_told_by_line_and_without_its_secrets() {
    for text in ["user = 'a'\npassword = 12345678\n", "{\"user\": \"a\",\n\"password\": 12345678}"] {
        let error = Profile::parse(text).err().unwrap();
        assert!(error.contains("line 2") && !error.contains("12345678"), "{error}");
    }
    let error = Profile::parse("endpoint = 'a:1'\n").err().unwrap();
    assert!(error.contains("unknown field `endpoint`"), "{error}");
}

#[test]
fn a_folder_without_a_profile_says_what_was_looked_for() {
    let (_keep, path) = folder(&[]);
    let error = Profile::read(&path).err().unwrap();
    assert!(error.to_string().contains("profile.toml"), "{error}");
}

#[test]
fn flags_beat_the_environment_and_the_profile() {
    let (_keep, path) = folder(&[("password", "from-file\n"), ("token", "tok\n")]);
    let profile = Profile::parse(TOML).unwrap();
    let none = Environment::default();
    let environment =
        Environment { password: Some("from-env".into()), token: Some("envtoken".into()), home: None };
    let basic = |user: &str, password: &str| {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        Ok(format!("Basic {text}"))
    };
    let with_file = flags(&format!("--user anna --password-file {path}/password"));
    assert_eq!(login(&with_file, &profile, &environment), basic("anna", "from-file"));
    assert_eq!(login(&flags("--user anna"), &profile, &environment), basic("anna", "from-env"));
    assert_eq!(login(&flags(""), &profile, &none), basic("admin", "geheim"));
    assert_eq!(login(&flags("--user admin"), &profile, &none), basic("admin", "geheim"));
    let with_token = flags(&format!("--token-file {path}/token"));
    assert_eq!(login(&with_token, &profile, &environment), Ok("Bearer tok".into()));
    assert_eq!(login(&flags(""), &profile, &environment), Ok("Bearer envtoken".into()));
    assert_eq!(login(&flags(""), &Profile::default(), &none), Ok(String::new()));
}

#[test]
fn a_user_without_a_password_is_told_how_to_give_one() {
    let profile = Profile::parse(TOML).unwrap();
    let error = login(&flags("--user anna"), &profile, &Environment::default()).unwrap_err();
    assert!(error.contains("no password for `anna`"), "admin's password is not anna's: {error}");
}

#[tokio::test]
async fn the_profile_of_the_home_directory_is_used_if_none_is_named() {
    let profile = "endpoints = ['http://127.0.0.1:1']\n";
    let (_keep, home) = folder(&[(".config/directorate/config.toml", profile)]);
    let environment = Environment { home: Some(home), ..Environment::default() };
    assert!(flags("").fleet(&environment).is_ok());
    let error = flags("").fleet(&Environment::default()).err().unwrap();
    assert!(error.to_string().contains("no director is known"), "{error}");
}

#[test]
fn all_complaints_come_together() {
    let (_keep, path) = folder(&[]);
    let connection = flags(&format!("-e a:1 --ca {path}/no-ca --user anna"));
    let error = connection.fleet(&Environment::default()).err().unwrap().to_string();
    assert!(error.contains("no-ca") && error.contains("no password for `anna`"), "{error}");
}
