//! A stand-in for whoever keeps archives: it says what the test wants, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use executor::ports::{ArchiveError, Archives as _};
use owned_tasks::{OnExit, OwnedTasks};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::AsyncBufReadExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::exchange::is_off_limits;
use super::{Limits, Trust, WebArchives};

const MINUTE: Duration = Duration::from_secs(60);

fn limits() -> Limits {
    Limits { connect: MINUTE, answer: MINUTE, stall: MINUTE, whole: MINUTE, bytes_max: 1000 }
}

/// What is answered, byte for byte; what `HANG` ends goes on for ever.
type Pages = BTreeMap<&'static str, String>;

const HANG: &str = "<hang>";

struct Keeper {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    tasks: OwnedTasks,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.tasks.stop_token().cancel();
    }
}

impl Keeper {
    async fn start(tls: Option<TlsAcceptor>, pages: impl FnOnce(u16) -> Pages) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (pages, asked, tasks) = (pages(port), Arc::new(Mutex::default()), OwnedTasks::new());
        let heard = asked.clone();
        tasks.spawn("a keeper of archives", OnExit::Ignore, move |stop| async move {
            let answer_all = async {
                loop {
                    let (connected, _) = listener.accept().await.unwrap();
                    // Whoever goes away, or does not trust us, ends this connection and no more.
                    let _ = match &tls {
                        None => answer(connected, &pages, &heard).await,
                        Some(tls) => match tls.accept(connected).await {
                            Ok(connected) => answer(connected, &pages, &heard).await,
                            Err(error) => Err(error),
                        },
                    };
                }
            };
            tokio::select! { () = stop.cancelled() => {}, () = answer_all => {} }
        });
        Self { port, asked, tasks }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn answer(
    connected: impl AsyncRead + AsyncWrite + Unpin,
    pages: &Pages,
    heard: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut connected = BufReader::new(connected);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if connected.read_line(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    heard.lock().unwrap().push(head);
    let page = pages
        .get(path.as_str())
        .map_or("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", String::as_str);
    connected.write_all(page.trim_end_matches(HANG).as_bytes()).await?;
    connected.flush().await?;
    if page.ends_with(HANG) {
        // Until whoever asked has had enough.
        let _ = connected.read_to_end(&mut Vec::new()).await;
    }
    connected.shutdown().await
}

fn ok(content: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{content}", content.len())
}

fn redirect(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}

fn fetcher(limits: Limits) -> WebArchives {
    WebArchives::new(limits, Trust::Only(Arc::new(RootCertStore::empty())))
}

async fn fetch(archives: &WebArchives, url: &str) -> Result<String, String> {
    let mut content = String::new();
    let mut reader = archives.open(url).await.map_err(|error| told(&error))?;
    reader.read_to_string(&mut content).await.map_err(|error| error.to_string())?;
    Ok(content)
}

fn told(error: &ArchiveError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn archives_are_fetched_with_the_login_that_their_place_wants() {
    let keeper = Keeper::start(None, |_| {
        let chunked =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n";
        Pages::from([("/a.tgz?x=1", ok("content")), ("/chunked", chunked.to_owned()), ("/empty", ok(""))])
    })
    .await;
    let archives = fetcher(limits());
    let url = format!("http://me:pass@127.0.0.1:{}/a.tgz?x=1", keeper.port);
    assert_eq!(fetch(&archives, &url).await.as_deref(), Ok("content"));
    let asked = keeper.asked().pop().unwrap();
    assert!(asked.starts_with("GET /a.tgz?x=1 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: Basic bWU6cGFzcw=="), "{asked}");
    assert!(asked.contains(&format!("host: 127.0.0.1:{}\r\n", keeper.port)), "{asked}");
    assert_eq!(fetch(&archives, &keeper.url("/chunked")).await.as_deref(), Ok("abcdef"));
    assert_eq!(fetch(&archives, &keeper.url("/empty")).await.as_deref(), Ok(""));
}

#[tokio::test]
async fn redirects_are_followed_but_not_with_the_login() {
    let other = Keeper::start(None, |_| Pages::from([("/there", ok("found"))])).await;
    let away = redirect(&other.url("/there"));
    let keeper = Keeper::start(None, |_| Pages::from([("/here", redirect("/next")), ("/next", away)])).await;
    let url = format!("http://me:pass@127.0.0.1:{}/here", keeper.port);
    assert_eq!(fetch(&fetcher(limits()), &url).await.as_deref(), Ok("found"));
    assert!(keeper.asked().iter().all(|head| head.contains("authorization")), "{:?}", keeper.asked());
    assert!(!other.asked()[0].contains("authorization"), "{:?}", other.asked());
}

#[tokio::test]
async fn redirects_come_to_an_end() {
    let keeper = Keeper::start(None, |_| Pages::from([("/round", redirect("/round"))])).await;
    let answer = fetcher(limits()).open(&keeper.url("/round")).await.err();
    assert!(matches!(answer, Some(ArchiveError::TooManyRedirects { .. })), "{answer:?}");
    assert_eq!(keeper.asked().len(), 10);
}

#[tokio::test]
async fn what_is_not_there_is_told_apart() {
    let keeper = Keeper::start(None, |_| Pages::new()).await;
    let url = format!("http://me:pass@127.0.0.1:{}/none.tgz?signature=s", keeper.port);
    match fetcher(limits()).open(&url).await.err() {
        Some(ArchiveError::NotFound { url }) => assert_eq!(url, keeper.url("/none.tgz")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_wrong_with_an_answer_is_told_without_secrets() {
    let long = "x".repeat(1001);
    let keeper = Keeper::start(None, |_| {
        let without_length = format!("HTTP/1.1 200 OK\r\n\r\n{long}");
        let cut_off = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this".to_owned();
        let rubbish = "SSH-2.0-OpenSSH_9.6\r\n".to_owned();
        let nowhere = "HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n".to_owned();
        let denied = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".to_owned();
        Pages::from([
            ("/long", ok(&long)),
            ("/long-too", without_length),
            ("/cut", cut_off),
            ("/rubbish", rubbish),
            ("/nowhere", nowhere),
            ("/file", redirect("file:///etc/passwd")),
            ("/denied", denied),
        ])
    })
    .await;
    for (path, wanted) in [
        ("/long", "larger than"),
        ("/long-too", "larger than"),
        ("/cut", "error reading a body from connection"),
        ("/rubbish", "invalid HTTP version"),
        ("/nowhere", "a redirect without a location"),
        ("/file", "only http and https can be fetched"),
        ("/denied", "403 Forbidden"),
    ] {
        let url = format!("http://me:secret@127.0.0.1:{}{path}", keeper.port);
        let error = fetch(&fetcher(limits()), &url).await.unwrap_err();
        assert!(error.contains(wanted), "{path}: {error}");
        assert!(!error.contains("secret"), "{path}: {error}");
    }
    for url in ["file:///etc/passwd", "http://me:secret@", "me:secret@there"] {
        let error = fetch(&fetcher(limits()), url).await.unwrap_err();
        assert!(!error.contains("secret") && !error.contains("passwd"), "{error}");
    }
}

#[tokio::test]
async fn nobody_is_waited_for_for_ever() {
    let soon = Duration::from_millis(50);
    let keeper = Keeper::start(None, |_| {
        let half = format!("{}{HANG}", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
        Pages::from([("/half", half), ("/silent", HANG.to_owned())])
    })
    .await;
    for (limits, path, wanted) in [
        (Limits { answer: soon, ..limits() }, "/silent", "no answer in time"),
        (Limits { stall: soon, ..limits() }, "/half", "nothing more comes"),
        (Limits { whole: soon, ..limits() }, "/half", "it takes too long"),
    ] {
        let error = fetch(&fetcher(limits), &keeper.url(path)).await.unwrap_err();
        assert!(error.contains(wanted), "{path}: {error}");
    }
}

#[tokio::test]
async fn over_tls_only_those_are_believed_who_are_trusted() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let tls = TlsAcceptor::from(Arc::new(config));
    let keeper = Keeper::start(Some(tls), |port| {
        Pages::from([("/a", ok("content")), ("/plain", redirect(&format!("http://localhost:{port}/a")))])
    })
    .await;
    let url = |path: &str| format!("https://localhost:{}{path}", keeper.port);
    let error = fetch(&fetcher(limits()), &url("/a")).await.unwrap_err();
    assert!(error.contains("agree on TLS"), "{error}");
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let trusting = WebArchives::new(limits(), Trust::Only(Arc::new(roots)));
    assert_eq!(fetch(&trusting, &url("/a")).await.as_deref(), Ok("content"));
    let error = fetch(&trusting, &url("/plain")).await.unwrap_err();
    assert!(error.contains("it leads from https to http"), "{error}");
}

#[test]
fn clouds_are_not_asked_for_their_machines_secrets() {
    for (address, off_limits) in [
        ("169.254.169.254", true),
        ("::ffff:169.254.169.254", true),
        ("fe80::1", true),
        ("127.0.0.1", false),
        ("10.0.0.1", false),
        ("::1", false),
    ] {
        assert_eq!(is_off_limits(address.parse::<IpAddr>().unwrap()), off_limits, "{address}");
    }
}
