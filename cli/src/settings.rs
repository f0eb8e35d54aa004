//! Where the fleet is and who we are: flags, environment and profile, read once and all complaints together.
//!
//! A flag (or its environment variable) beats the profile. The profile is a file that `directord init` writes, or a
//! folder with `profile.toml` or `profile.json` in it:
//!
//! ```toml
//! endpoints = ["director-1:25555", "director-2:25555", "director-3:25555"]
//! ca_file = "ca.pem"        # beside the profile; or ca_pem with the text itself
//! user = "admin"
//! password = "…"            # or token = "…"
//! ```

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;

use crate::client::{Fleet, Login, Patience, Trust};
use crate::error::{Error, chain};

/// Profile that is used when none is named and this one is there; below the home directory.
const PROFILE_DEFAULT: &str = ".config/directorate/config.toml";
/// What a folder that is given as profile is searched for.
const PROFILE_NAMES: &[&str] = &["profile.toml", "profile.json", "config.toml", "config.json"];

/// How to reach the fleet.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Connection {
    /// A director's address, HOST or HOST:PORT; repeat it, or separate with commas
    #[arg(
        long = "endpoint",
        short = 'e',
        env = "DCTL_ENDPOINTS",
        value_name = "ADDRESS",
        value_delimiter = ',',
        global = true,
        help_heading = "Connection"
    )]
    pub endpoints: Vec<String>,
    /// The authority that signed the directors' certificates, PEM
    #[arg(long, env = "DCTL_CA", value_name = "FILE", global = true, help_heading = "Connection")]
    pub ca: Option<Utf8PathBuf>,
    /// Who you are; the password comes from --password-file or DCTL_PASSWORD
    #[arg(long, env = "DCTL_USER", value_name = "NAME", global = true, help_heading = "Connection")]
    pub user: Option<String>,
    /// A file with your password
    #[arg(long, value_name = "FILE", global = true, help_heading = "Connection")]
    pub password_file: Option<Utf8PathBuf>,
    /// A file with a token to use instead of user and password (or DCTL_TOKEN)
    #[arg(long, value_name = "FILE", global = true, help_heading = "Connection")]
    pub token_file: Option<Utf8PathBuf>,
    /// A profile (file, or folder with profile.toml): endpoints, authority and login [default: ~/.config/directorate/config.toml]
    #[arg(long, env = "DCTL_PROFILE", value_name = "PATH", global = true, help_heading = "Connection")]
    pub profile: Option<Utf8PathBuf>,
    /// Seconds to try before giving up on the directors
    #[arg(
        long,
        env = "DCTL_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 30,
        global = true,
        help_heading = "Connection"
    )]
    pub timeout: u64,
}

/// The secrets, and what else comes from the environment alone: flags can be read in the list of processes.
#[derive(Clone, Default)]
pub struct Environment {
    /// `DCTL_PASSWORD`
    pub password: Option<String>,
    /// `DCTL_TOKEN`
    pub token: Option<String>,
    /// `HOME`
    pub home: Option<Utf8PathBuf>,
}

impl Environment {
    /// Reads this process' environment.
    pub fn of_process() -> Self {
        let get = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        Self {
            password: get("DCTL_PASSWORD"),
            token: get("DCTL_TOKEN"),
            home: get("HOME").map(Utf8PathBuf::from),
        }
    }
}

/// What a profile may say. Written by `directord init`, or by hand.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Addresses of the directors.
    #[serde(default)]
    pub endpoints: Vec<String>,
    /// The authority's certificates, PEM.
    pub ca_pem: Option<String>,
    /// A file with them; relative to the profile's folder.
    pub ca_file: Option<Utf8PathBuf>,
    /// The user's name.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// A token instead.
    pub token: Option<String>,
}

impl Profile {
    /// Reads a profile: JSON if it begins with a brace, TOML otherwise.
    pub fn read(path: &Utf8Path) -> Result<Self, Error> {
        let file = if path.is_dir() { Self::in_folder(path)? } else { path.to_owned() };
        let text = std::fs::read_to_string(&file).map_err(Error::file("read", &file))?;
        let mut profile =
            Self::parse(&text).map_err(|why| Error::Usage(format!("profile `{file}`: {why}")))?;
        if let (Some(ca_file), Some(folder)) = (&profile.ca_file, file.parent()) {
            profile.ca_file = Some(folder.join(ca_file));
        }
        Ok(profile)
    }

    fn in_folder(folder: &Utf8Path) -> Result<Utf8PathBuf, Error> {
        let found = PROFILE_NAMES.iter().map(|name| folder.join(name)).find(|path| path.is_file());
        found.ok_or_else(|| {
            Error::Usage(format!("no profile in `{folder}` (looked for {})", PROFILE_NAMES.join(", ")))
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        // The parsers' own messages quote lines of the file, and those hold secrets: only the place is told.
        if text.trim_start().starts_with('{') {
            serde_json::from_str(text)
                .map_err(|error| format!("wrong JSON or unknown key in line {}", error.line()))
        } else {
            toml::from_str(text).map_err(|error: toml::de::Error| {
                let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
                // An unknown key is told by name; any other message could quote a value.
                let why = Some(error.message()).filter(|message| message.starts_with("unknown field"));
                format!("line {line}: {}", why.unwrap_or("wrong TOML, or a value of the wrong type"))
            })
        }
    }
}

impl Connection {
    /// Resolves flags, environment and profile into a client. Nothing is sent yet.
    pub fn fleet(&self, environment: &Environment) -> Result<Fleet, Error> {
        let profile = self.profile(environment)?;
        let endpoints = if self.endpoints.is_empty() { &profile.endpoints } else { &self.endpoints };
        let endpoints: Vec<String> =
            endpoints.iter().map(|address| address.trim().to_owned()).filter(|a| !a.is_empty()).collect();
        let (trust, login) = (self.trust(&profile), self.login(&profile, environment));
        let (trust, login) = match (trust, login) {
            (Ok(trust), Ok(login)) => (trust, login),
            (Err(one), Err(other)) => {
                return Err(Error::Usage(format!("{}; {}", chain(&one), chain(&other))));
            }
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        Fleet::new(&endpoints, &trust, &login, Patience::within(Duration::from_secs(self.timeout)))
    }

    fn profile(&self, environment: &Environment) -> Result<Profile, Error> {
        match (&self.profile, &environment.home) {
            (Some(path), _) => Profile::read(path),
            (None, Some(home)) if home.join(PROFILE_DEFAULT).is_file() => {
                Profile::read(&home.join(PROFILE_DEFAULT))
            }
            _ => Ok(Profile::default()),
        }
    }

    fn trust(&self, profile: &Profile) -> Result<Trust, Error> {
        match (self.ca.as_ref().or(profile.ca_file.as_ref()), &profile.ca_pem) {
            (Some(path), _) if self.ca.is_some() || profile.ca_pem.is_none() => {
                Ok(Trust::Authority(std::fs::read_to_string(path).map_err(Error::file("read", path))?))
            }
            (_, Some(pem)) => Ok(Trust::Authority(pem.clone())),
            _ => Ok(Trust::Nobody),
        }
    }

    fn login(&self, profile: &Profile, environment: &Environment) -> Result<Login, Error> {
        if let Some(path) = &self.token_file {
            return Login::token(&read_secret(path)?);
        }
        let password = match &self.password_file {
            Some(path) => Some(read_secret(path)?),
            None => environment.password.clone(),
        };
        // A user named by hand goes before any token: who types a name means it.
        match (&self.user, password, &environment.token) {
            (Some(user), Some(password), _) => Login::basic(user, &password),
            (Some(user), None, None) if profile.user.as_ref() == Some(user) => {
                Login::basic(user, profile.password.as_deref().unwrap_or_default())
            }
            (Some(user), None, None) => Err(Error::Usage(format!(
                "no password for `{user}`: give --password-file FILE or set DCTL_PASSWORD"
            ))),
            (_, _, Some(token)) => Login::token(token),
            (None, password, None) => of_profile(profile, password),
        }
    }
}

fn of_profile(profile: &Profile, password: Option<String>) -> Result<Login, Error> {
    match (&profile.user, password.as_ref().or(profile.password.as_ref()), &profile.token) {
        (Some(user), Some(password), _) => Login::basic(user, password),
        (_, _, Some(token)) => Login::token(token),
        // `info` needs no login; everything else will be told so by the directors.
        _ => Ok(Login::default()),
    }
}

/// Reads a secret from a file, without the newline that editors leave at its end.
pub fn read_secret(path: &Utf8Path) -> Result<String, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.is_empty() {
        return Err(Error::Usage(format!("`{path}` is empty")));
    }
    Ok(secret.to_owned())
}

#[cfg(test)]
mod tests;
