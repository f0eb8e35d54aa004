//! The command lines of `ssh` and `scp`. Pure.
//!
//! Invariant: what a machine or a gateway is called comes from elsewhere, and never becomes an option or a shell's word.

use std::net::IpAddr;
use std::path::Path;

use crate::args::{InstanceSlug, Way};
use crate::error::Error;

/// A machine that we may log in to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// `group/id`.
    pub name: String,
    pub ip: IpAddr,
    /// By which it is known: a line's worth.
    pub key: String,
    /// By way of whom, as the directors say.
    pub gateway: Option<Gateway>,
}

/// A machine on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gateway {
    pub host: String,
    pub user: String,
}

/// What belongs to one use of `ssh`.
pub(super) struct Lines<'a> {
    /// Where `key` and `known_hosts` are.
    pub folder: &'a Path,
    pub user: &'a str,
    pub way: &'a Way,
}

/// Whether somebody sits at a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Terminal {
    Here,
    None,
}

impl Lines<'_> {
    /// Returns the arguments of `ssh`.
    pub fn ssh(&self, host: &Host, command: Option<&str>, terminal: Terminal) -> Result<Vec<String>, Error> {
        let mut line = self.options(host)?;
        line.push(if terminal == Terminal::Here { "-tt" } else { "-T" }.into());
        line.extend(self.way.opts.clone());
        line.extend(["-l".into(), self.user.into(), "--".into(), host.ip.to_string()]);
        line.extend(command.map(str::to_owned));
        Ok(line)
    }

    /// Returns the arguments of `scp`.
    pub fn scp(&self, host: &Host, paths: &[Place], recursive: Recursive) -> Result<Vec<String>, Error> {
        let mut line = self.options(host)?;
        if recursive == Recursive::Yes {
            line.push("-r".into());
        }
        line.extend(self.way.opts.clone());
        line.push("--".into());
        let there = match host.ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        line.extend(paths.iter().map(|place| match place {
            // What has a colon would be a machine's name, and what has a dash an option.
            Place::Here(path) if path.starts_with(['/', '.']) => path.clone(),
            Place::Here(path) => format!("./{path}"),
            Place::There { path, .. } => format!("{}@{there}:{path}", self.user),
        }));
        Ok(line)
    }

    fn options(&self, host: &Host) -> Result<Vec<String>, Error> {
        let file = |name: &str| format!("\"{}\"", self.folder.join(name).display());
        let mut all = vec![
            format!("IdentityFile={}", file("key")),
            "IdentitiesOnly=yes".into(),
            "StrictHostKeyChecking=yes".into(),
            format!("UserKnownHostsFile={}", file("known_hosts")),
            "GlobalKnownHostsFile=none".into(),
            "UpdateHostKeys=no".into(),
            "PasswordAuthentication=no".into(),
            "ForwardAgent=no".into(),
            "ServerAliveInterval=30".into(),
        ];
        if let Some(gateway) = self.gateway(host) {
            all.push(format!("ProxyCommand={}", self.through(&gateway)?));
        }
        Ok(all.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect())
    }

    /// Returns by way of whom: what the operator says, or else the directors.
    fn gateway(&self, host: &Host) -> Option<Gateway> {
        if self.way.gw_disable {
            return None;
        }
        let told = host.gateway.clone().unwrap_or_default();
        let gateway = Gateway {
            host: self.way.gw_host.clone().unwrap_or(told.host),
            user: self.way.gw_user.clone().unwrap_or(told.user),
        };
        (!gateway.host.is_empty()).then_some(gateway)
    }

    /// Returns a line for the shell. Whether the gateway is the right one, the operator's own `known_hosts` says.
    fn through(&self, Gateway { host, user }: &Gateway) -> Result<String, Error> {
        let mut line =
            "ssh -o ForwardAgent=no -o ClearAllForwardings=yes -o ServerAliveInterval=30".to_owned();
        if let Some(key) = &self.way.gw_private_key {
            line += &format!(" -o IdentitiesOnly=yes -i {}", quoted(key).replace('%', "%%"));
        }
        if !user.is_empty() {
            line += &format!(" -l {}", plain(user)?);
        }
        Ok(format!("{line} -W %h:%p -- {}", plain(host)?))
    }
}

/// Whether folders are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recursive {
    Yes,
    No,
}

/// A path, here or there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Here(String),
    There { of: InstanceSlug, path: String },
}

impl Place {
    /// Reads `GROUP[/ID]:PATH`, or a path of ours; one with a colon begins with `./` or `/`.
    pub fn of(text: &str) -> Result<Self, Error> {
        let here = || Ok(Self::Here(text.to_owned()));
        if text.starts_with(['/', '.']) {
            return here();
        }
        let Some((of, path)) = text.split_once(':') else { return here() };
        let of = of.parse().map_err(|error| Error::Usage(format!("`{text}`: {error}")))?;
        Ok(Self::There { of, path: path.to_owned() })
    }
}

/// Returns the command that follows logs, as root: those of jobs are not everybody's.
pub(super) fn follow_logs(folder: &str, only: &[String], lines: u32) -> Result<String, Error> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+@/*?[]".contains(&byte);
    for glob in only {
        let leaves = glob.starts_with('/') || glob.split('/').any(|part| part == "..");
        if glob.is_empty() || glob.starts_with('-') || leaves || !glob.bytes().all(is_plain) {
            return Err(Error::Usage(format!("`{glob}` can't be followed: name files below `{folder}`")));
        }
    }
    let globs = if only.is_empty() { "**/*.log".to_owned() } else { only.join(" ") };
    let script = format!(
        "shopt -s globstar nullglob; cd {folder} && set -- {globs}; [ $# -gt 0 ] || {{ echo nothing to follow >&2; exit 1; }}; \
         exec tail -n {lines} -F -- \"$@\""
    );
    Ok(format!("sudo -n bash -c {}", quoted(&script)))
}

/// Returns a word that a shell leaves as it is.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Returns a name as it is, if it is one.
fn plain(name: &str) -> Result<&str, Error> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    match !name.starts_with('-') && name.bytes().all(fits) {
        true => Ok(name),
        false => Err(Error::Usage(format!("`{name}` is no name of a gateway or of somebody there"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(ip: &str) -> Host {
        Host { name: "web/u".into(), ip: ip.parse().unwrap(), key: "ssh-rsa AAAA".into(), gateway: None }
    }

    fn with_gateway(host_name: &str, user: &str) -> Host {
        let gateway = Gateway { host: host_name.into(), user: user.into() };
        Host { gateway: Some(gateway), ..host("10.0.0.2") }
    }

    fn lines(way: &Way) -> Lines<'_> {
        Lines { folder: Path::new("/tmp/a b"), user: "bosh_1a", way }
    }

    const OPTIONS: &str = "-o IdentityFile=\"/tmp/a b/key\" -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes \
        -o UserKnownHostsFile=\"/tmp/a b/known_hosts\" -o GlobalKnownHostsFile=none -o UpdateHostKeys=no \
        -o PasswordAuthentication=no -o ForwardAgent=no -o ServerAliveInterval=30";

    #[test]
    fn a_shell_and_a_command_are_asked_for_of_the_one_whose_key_is_known() {
        let way = Way::default();
        let shell = lines(&way).ssh(&host("10.0.0.2"), None, Terminal::Here).unwrap();
        assert_eq!(shell.join(" "), format!("{OPTIONS} -tt -l bosh_1a -- 10.0.0.2"));
        let way = Way { opts: vec!["-v".into()], ..Way::default() };
        let command = lines(&way).ssh(&host("fd00::2"), Some("id; hostname"), Terminal::None).unwrap();
        assert_eq!(command.join(" "), format!("{OPTIONS} -T -v -l bosh_1a -- fd00::2 id; hostname"));
        assert_eq!(command.last().unwrap(), "id; hostname", "one word: the shell there reads it");
    }

    #[test]
    fn files_are_copied_either_way() {
        let way = Way::default();
        let there = Place::of("web/0:/tmp/x").unwrap();
        assert_eq!(there, Place::There { of: "web/0".parse().unwrap(), path: "/tmp/x".into() });
        let paths = [Place::of("-a").unwrap(), Place::of("./b:c").unwrap(), there];
        let copy = lines(&way).scp(&host("fd00::2"), &paths, Recursive::Yes).unwrap();
        assert_eq!(copy.join(" "), format!("{OPTIONS} -r -- ./-a ./b:c bosh_1a@[fd00::2]:/tmp/x"));
        assert!(Place::of("web/0/1:x").is_err());
    }

    #[track_caller]
    fn check_gateway(way: Way, host: &Host, expect: &str) {
        let line = lines(&way).ssh(host, None, Terminal::None).unwrap();
        let way = line.iter().find_map(|word| word.strip_prefix("ProxyCommand=")).unwrap_or_default();
        assert_eq!(way, expect);
    }

    #[test]
    fn the_way_leads_through_the_gateway_that_is_told() {
        let ssh = "ssh -o ForwardAgent=no -o ClearAllForwardings=yes -o ServerAliveInterval=30";
        let told = with_gateway("gw.example", "vcap");
        check_gateway(Way::default(), &told, &format!("{ssh} -l vcap -W %h:%p -- gw.example"));
        check_gateway(Way { gw_disable: true, ..Way::default() }, &told, "");
        let other =
            Way { gw_host: Some("other".into()), gw_private_key: Some("my key'%".into()), ..Way::default() };
        let key = r"-o IdentitiesOnly=yes -i 'my key'\''%%'";
        check_gateway(other.clone(), &told, &format!("{ssh} {key} -l vcap -W %h:%p -- other"));
        check_gateway(other, &host("10.0.0.2"), &format!("{ssh} {key} -W %h:%p -- other"));
        check_gateway(Way::default(), &host("10.0.0.2"), "");
    }

    #[test]
    fn nobody_s_name_becomes_an_option_or_a_command() {
        let way = Way::default();
        for (host, user) in
            [("-oProxyCommand=x", "vcap"), ("gw; rm -r /", "vcap"), ("gw", "$(id)"), ("gw", "-l")]
        {
            lines(&way).ssh(&with_gateway(host, user), None, Terminal::None).unwrap_err();
        }
    }

    #[test]
    fn logs_are_followed_below_their_folder() {
        let line = follow_logs("/var/vcap/sys/log", &["hello/*.log".into()], 7).unwrap();
        assert!(
            line.starts_with(
                "sudo -n bash -c 'shopt -s globstar nullglob; cd /var/vcap/sys/log && set -- hello/*.log;"
            ),
            "{line}"
        );
        assert!(line.contains("tail -n 7 -F"), "{line}");
        for bad in ["/etc/shadow", "../x", "a/../b", "$(id)", "a b", "-f", "", "a'b"] {
            follow_logs("/var/vcap/sys/log", &[bad.into()], 7).unwrap_err();
        }
    }
}
