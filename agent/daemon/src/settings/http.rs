//! A cloud's metadata, over plain HTTP: they are served by the host beneath the machine, and by nobody else.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use retry::Verdict;
use tokio::net::TcpStream;

use crate::error::ActionError;

/// The header that a token goes into.
pub(super) const TOKEN: &str = "x-aws-ec2-metadata-token";

/// The header that says how long it is to be good.
const TOKEN_FOR: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// How long, in seconds: enough for the questions of one start.
const TOKEN_SECONDS: &str = "300";

/// Longest document.
const BYTES_MAX: usize = 4 << 20;

/// How long one exchange may take.
const WITHIN: Duration = Duration::from_secs(10);

/// Metadata services come up with the machine, and not always before the agent.
const TRY: retry::Policy = retry::Policy {
    initial: Duration::from_millis(500),
    max: Duration::from_secs(5),
    total: Some(Duration::from_secs(30)),
};

/// Fetches a document.
pub(super) async fn get(
    base: &str,
    path: &str,
    headers: &[(String, String)],
) -> Result<Vec<u8>, ActionError> {
    exchange(Method::GET, base, path, headers).await
}

/// Asks for a token, without which some services answer nothing.
pub(super) async fn token(base: &str, path: &str) -> Result<String, ActionError> {
    let headers = [(TOKEN_FOR.to_owned(), TOKEN_SECONDS.to_owned())];
    let token = exchange(Method::PUT, base, path, &headers).await?;
    String::from_utf8(token).map_err(|_| ActionError::failed("the token is no text"))
}

async fn exchange(
    method: Method,
    base: &str,
    path: &str,
    headers: &[(String, String)],
) -> Result<Vec<u8>, ActionError> {
    let uri: Uri = format!("{}/{}", base.trim_end_matches('/'), path.trim_start_matches('/'))
        .parse()
        .map_err(|error| ActionError::failed(format!("`{base}` and `{path}` make no URL: {error}")))?;
    retry::with_backoff(TRY, async || {
        match tokio::time::timeout(WITHIN, exchange_once(&method, &uri, headers)).await {
            Ok(exchanged) => exchanged,
            Err(_) => Err(Verdict::Again(ActionError::failed(format!("{uri} does not answer")))),
        }
    })
    .await
}

async fn exchange_once(
    method: &Method,
    uri: &Uri,
    headers: &[(String, String)],
) -> Result<Vec<u8>, Verdict<ActionError>> {
    let failed = |error: &dyn std::fmt::Display| ActionError::failed(format!("{uri}: {error}"));
    let again = |error: &dyn std::fmt::Display| Verdict::Again(failed(error));
    let host = uri.host().ok_or_else(|| Verdict::Fatal(failed(&"no host is named")))?;
    let tcp =
        TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await.map_err(|error| again(&error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(tcp)).await.map_err(|error| again(&error))?;
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let target = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(method).uri(target).header(HOST, authority);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| Verdict::Fatal(failed(&error)))?;
    let exchanged = async {
        let answer = sender.send_request(request).await.map_err(|error| again(&error))?;
        let status = answer.status();
        if status.is_client_error() {
            return Err(Verdict::Fatal(failed(&status)));
        }
        if !status.is_success() {
            return Err(again(&status));
        }
        let content = Limited::new(answer.into_body(), BYTES_MAX).collect().await;
        Ok(content.map_err(|error| again(&error))?.to_bytes().to_vec())
    };
    tokio::pin!(exchanged);
    tokio::select! {
        exchanged = &mut exchanged => exchanged,
        // Its end may come together with the answer's.
        _ = connection => exchanged.await,
    }
}
