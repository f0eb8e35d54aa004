//! One endpoint: its address, how far it is trusted, and the login that goes with every call.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic::{Request, Status};

use super::Link;
use crate::error::Error;

/// Port of the API if an address names none.
const PORT_DEFAULT: u16 = 25555;
/// A replica that does not even take the connection is tried later again.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Pings on idle connections: a followed task may be silent for long, and a host that was cut off must not look like that.
const PING_EVERY: Duration = Duration::from_secs(5);
/// An unanswered ping breaks the connection.
const PING_ANSWER_MAX: Duration = Duration::from_secs(5);

/// Whose certificates we believe.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// The fleet's own authority (or two, while one is rotated), PEM.
    Authority(String),
    /// Nobody's: only plain-text endpoints on loopback can be used.
    #[default]
    Nobody,
}

/// The `authorization` of every call.
#[derive(Clone, Debug, Default)]
pub struct Login(Option<MetadataValue<Ascii>>);

impl Login {
    /// Returns a login by name and password.
    pub fn basic(user: &str, password: &str) -> Result<Self, Error> {
        if user.contains(':') {
            return Err(Error::Usage(format!("the user name `{user}` contains a colon")));
        }
        Self::header(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }

    /// Returns a login by token.
    pub fn token(token: &str) -> Result<Self, Error> {
        Self::header(format!("Bearer {token}"))
    }

    fn header(text: String) -> Result<Self, Error> {
        // The value must not appear in the message: it is a secret.
        let mut value: MetadataValue<Ascii> = text
            .parse()
            .map_err(|_| Error::Usage("the token contains characters that no token has".into()))?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Login {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// An address with a connection that is made when it is needed, and again when it broke.
pub(super) struct Endpoint {
    address: String,
    link: Link,
}

impl Endpoint {
    /// Checks the address; connects nowhere yet.
    pub(super) fn prepare(address: &str, trust: &Trust, login: &Login) -> Result<Self, Error> {
        let uri = parse(address)?;
        let wrong = |error: tonic::transport::Error| {
            Error::Usage(format!("endpoint `{address}` cannot be used: {}", crate::error::chain(&error)))
        };
        let mut endpoint = Channel::builder(uri.clone())
            .connect_timeout(CONNECT_MAX)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_ANSWER_MAX)
            .keep_alive_while_idle(true)
            .user_agent(concat!("dctl/", env!("CARGO_PKG_VERSION")))
            .map_err(wrong)?;
        if uri.scheme_str() == Some("https") {
            let Trust::Authority(pem) = trust else {
                return Err(Error::Usage(format!(
                    "endpoint `{address}` speaks TLS, and no authority is known: give --ca FILE, DCTL_CA, or a profile"
                )));
            };
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
            endpoint = endpoint.tls_config(tls).map_err(wrong)?;
        }
        let link = Link::new(endpoint.connect_lazy(), login.clone());
        Ok(Self { address: address.to_owned(), link })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn link(&self) -> Link {
        self.link.clone()
    }
}

/// Reads `HOST`, `HOST:PORT` or a URL. Plain text is for loopback alone: a password must not cross a network in it.
fn parse(address: &str) -> Result<Uri, Error> {
    let wrong = |why: &str| Error::Usage(format!("endpoint `{address}` {why}"));
    let with_scheme = if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
    let uri: Uri = with_scheme.parse().map_err(|_| wrong("is not an address (wanted: HOST:PORT)"))?;
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(wrong("is not an address (wanted: HOST:PORT)"));
    };
    match scheme {
        "https" => {}
        "http" if is_loopback(host) => {}
        "http" => return Err(wrong("would send the password in plain text: use https")),
        _ => return Err(wrong("is neither https nor http")),
    }
    if uri.path() != "/" {
        return Err(wrong("has a path; give host and port only"));
    }
    let port = uri.port_u16().unwrap_or(PORT_DEFAULT);
    format!("{scheme}://{host}:{port}").parse().map_err(|_| wrong("is not an address (wanted: HOST:PORT)"))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, wanted: Result<&str, &str>) {
        let got = parse(address).map(|uri| uri.to_string()).map_err(|error| error.to_string());
        match wanted {
            Ok(uri) => assert_eq!(got.as_deref(), Ok(uri)),
            Err(part) => {
                let error = got.expect_err(address);
                assert!(error.contains(part), "{error}");
            }
        }
    }

    #[test]
    fn addresses_get_scheme_and_port() {
        check("director-1", Ok("https://director-1:25555/"));
        check("10.0.0.6:4443", Ok("https://10.0.0.6:4443/"));
        check("https://[fd00::1]:25555", Ok("https://[fd00::1]:25555/"));
        check("http://127.0.0.1:8080", Ok("http://127.0.0.1:8080/"));
        check("http://[::1]", Ok("http://[::1]:25555/"));
    }

    #[test]
    fn what_would_leak_or_make_no_sense_is_refused() {
        check("http://10.0.0.6", Err("plain text"));
        check("http://127.evil.example", Err("plain text"));
        check("ftp://localhost", Err("neither"));
        check("https://director/api", Err("has a path"));
        check("a b", Err("not an address"));
        check("", Err("not an address"));
    }

    #[test]
    fn a_login_is_not_shown() {
        let login = Login::basic("admin", "geheim").unwrap();
        assert!(!format!("{login:?}").contains(&STANDARD.encode("admin:geheim")));
        assert!(Login::basic("a:b", "c").is_err());
        let error = Login::token("two\nlines").unwrap_err();
        assert!(!error.to_string().contains("lines"));
    }

    #[tokio::test]
    async fn tls_needs_an_authority() {
        let error = Endpoint::prepare("director", &Trust::Nobody, &Login::default()).err().unwrap();
        assert!(error.to_string().contains("--ca"), "{error}");
    }
}
