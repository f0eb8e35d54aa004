//! A URL, taken apart: where to go, what to ask for, and what opens the place.

use axum::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

/// Where an archive lies. Its text never shows credentials or the query, which may be a signature.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub is_tls: bool,
    /// A name or an address; one of the sixth version without brackets.
    pub host: String,
    pub port: u16,
    /// Host and port as the URL has them.
    pub authority: String,
    /// With the query.
    pub path: String,
    /// For an `Authorization` header.
    pub login: Option<String>,
}

/// Why a URL leads nowhere.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum BadUrl {
    #[error("it is not a URL")]
    Syntax,
    #[error("only http and https can be fetched")]
    Scheme,
    #[error("it leads from https to http")]
    Downgrade,
}

impl Target {
    pub fn parse(url: &str) -> Result<Self, BadUrl> {
        let (scheme, _) = url.trim().split_once("://").ok_or(BadUrl::Syntax)?;
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            // A file of this machine is nobody's business, and there is nothing else that we speak.
            _ => return Err(BadUrl::Scheme),
        };
        let uri: Uri = url.trim().parse().map_err(|_| BadUrl::Syntax)?;
        let whole = uri.authority().ok_or(BadUrl::Syntax)?.as_str();
        let (login, authority) = match whole.rsplit_once('@') {
            Some((login, authority)) => (Some(login), authority),
            None => (None, whole),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(BadUrl::Syntax)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            is_tls,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            authority: authority.to_owned(),
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            login: login.map(basic),
        })
    }

    /// Returns the URL without what opens the place.
    pub fn shown(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        format!("{}://{}{path}", self.scheme(), self.authority)
    }

    /// Returns where a redirect leads. What opens this place goes to no other.
    pub fn follow(&self, location: &str) -> Result<Self, BadUrl> {
        let own = format!("{}://{}", self.scheme(), self.authority);
        let is_absolute = location.split_once("://").is_some_and(|(scheme, _)| {
            !scheme.is_empty()
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        });
        let url = if is_absolute {
            location.to_owned()
        } else if location.starts_with("//") {
            format!("{}:{location}", self.scheme())
        } else if location.starts_with('/') {
            format!("{own}{location}")
        } else {
            let path = self.path.split('?').next().unwrap_or_default();
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{own}{folder}/{location}")
        };
        let mut next = Self::parse(&url)?;
        if self.is_tls && !next.is_tls {
            return Err(BadUrl::Downgrade);
        }
        let is_here = (self.is_tls, &self.host, self.port) == (next.is_tls, &next.host, next.port);
        if is_here && next.login.is_none() {
            next.login.clone_from(&self.login);
        }
        Ok(next)
    }

    fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }
}

/// Returns the header for `user:password`, which URLs write with percent signs where it has signs of theirs.
fn basic(login: &str) -> String {
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let mut plain: Vec<u8> = percent_decode_str(user).collect();
    plain.push(b':');
    plain.extend(percent_decode_str(password));
    format!("Basic {}", STANDARD.encode(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn target(url: &str) -> Target {
        Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn what_opens_a_place_is_not_shown() {
        let found = target("https://me:p%40ss@example.com:8443/a/b.tgz?signature=abc#there");
        assert_eq!(found.shown(), "https://example.com:8443/a/b.tgz");
        assert_eq!((found.host.as_str(), found.port), ("example.com", 8443));
        assert_eq!(found.path, "/a/b.tgz?signature=abc");
        assert_eq!(found.login.unwrap(), format!("Basic {}", STANDARD.encode("me:p@ss")));
    }

    #[test]
    fn ports_and_paths_have_defaults() {
        for (url, host, port, path) in [
            ("http://h", "h", 80, "/"),
            ("https://h?x=1", "h", 443, "/?x=1"),
            ("http://[::1]:81/a", "::1", 81, "/a"),
        ] {
            let found = target(url);
            assert_eq!((found.host.as_str(), found.port, found.path.as_str()), (host, port, path), "{url}");
        }
    }

    #[test]
    fn nothing_but_the_web_is_fetched() {
        for url in [
            "file:///etc/passwd",
            "ftp://h/x",
            "gopher://h",
            "",
            "h/x.tgz",
            "/etc/passwd",
            "http://",
            "http://a b/",
        ] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn redirects_lead_where_they_say() {
        let from = target("http://me:pw@h:81/a/b.tgz?x=1");
        for (location, to) in [
            ("/c.tgz", "http://h:81/c.tgz"),
            ("c.tgz?y=2", "http://h:81/a/c.tgz?y=2"),
            ("//other/c", "http://other/c"),
            ("https://other/c", "https://other/c"),
            ("/c?from=http://h", "http://h:81/c?from=http://h"),
        ] {
            let (next, wanted) = (from.follow(location).unwrap(), target(to));
            let seen = (next.is_tls, &next.host, next.port, &next.path);
            assert_eq!(seen, (wanted.is_tls, &wanted.host, wanted.port, &wanted.path), "{location}");
        }
    }

    #[test]
    fn credentials_stay_with_their_place() {
        let from = target("https://me:pw@h/a");
        assert_eq!(from.follow("/b").unwrap().login, from.login);
        for elsewhere in ["https://other/b", "https://h:444/b"] {
            assert_eq!(from.follow(elsewhere).unwrap().login, None, "{elsewhere}");
        }
        assert_eq!(from.follow("http://h/b").err(), Some(BadUrl::Downgrade));
        assert_eq!(from.follow("file:///etc/passwd").err(), Some(BadUrl::Scheme));
    }
}
