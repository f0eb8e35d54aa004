//! Deadlines that callers set: read from `grpc-timeout`, honoured here, and known to whatever waits on the way down.

use std::time::Duration;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::time::Instant;

use crate::error_map;

/// The header that carries it.
const HEADER: &str = "grpc-timeout";

/// What whoever waits leaves of the caller's time, so that its own answer, which says more, arrives before the time is over.
const TO_ANSWER: Duration = Duration::from_millis(100);

tokio::task_local! {
    static DEADLINE: Instant;
}

/// Returns how long something that is done for the present caller may wait: `most`, or less if the caller waits less.
pub fn within(most: Duration) -> Duration {
    let left = DEADLINE.try_with(|deadline| deadline.saturating_duration_since(Instant::now()));
    match left {
        // Of a very short time, half; nobody is told at once that it is over.
        Ok(left) => most.min(left.saturating_sub(TO_ANSWER.min(left / 2))),
        Err(_) => most,
    }
}

/// Runs something under a caller's deadline.
pub async fn scope<F: Future>(deadline: Instant, work: F) -> F::Output {
    DEADLINE.scope(deadline, work).await
}

/// Answers requests within the time that their callers give them.
pub async fn honour(request: Request, next: Next) -> Response {
    let Some(limit) = limit_of(request.headers()) else { return next.run(request).await };
    let deadline = Instant::now() + limit;
    match tokio::time::timeout_at(deadline, scope(deadline, next.run(request))).await {
        Ok(answer) => answer,
        Err(_) => error_map::late().into_http::<axum::body::Body>().into_response(),
    }
}

/// Reads a number of up to eight digits and a unit; a header that is neither sets no deadline.
fn limit_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(HEADER)?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 =
        Some(number).filter(|n| n.len() <= 8 && n.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn;
    use axum::routing::post;
    use tower::ServiceExt as _;

    use super::*;

    fn limit(text: &str) -> Option<Duration> {
        limit_of(
            &[(axum::http::HeaderName::from_static(HEADER), text.parse().unwrap())].into_iter().collect(),
        )
    }

    #[test]
    fn deadlines_are_read_as_grpc_writes_them() {
        assert_eq!(limit("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(limit("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(limit("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for wrong in ["", "S", "5", "5s", "-5S", "999999999S", "5 S", "ö"] {
            assert_eq!(limit(wrong), None, "{wrong}");
        }
        assert_eq!(limit_of(&HeaderMap::new()), None);
    }

    /// Serves a method that never ends, and one that tells how long it might wait.
    fn router() -> Router {
        Router::new()
            .route("/never", post(std::future::pending::<String>))
            .route("/wait", post(|| async { within(Duration::from_secs(20)).as_millis().to_string() }))
            .layer(from_fn(honour))
    }

    async fn call(path: &str, timeout: Option<&str>) -> Response {
        let request = axum::http::Request::post(path);
        let request = timeout.into_iter().fold(request, |request, timeout| request.header(HEADER, timeout));
        router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_waited_long_enough_is_told_so() {
        let begun = Instant::now();
        let answer = call("/never", Some("300m")).await;
        assert_eq!(answer.headers()["grpc-status"], "4", "DEADLINE_EXCEEDED");
        assert_eq!(begun.elapsed(), Duration::from_millis(300));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_below_knows_how_long() {
        for (timeout, expected) in
            [(None, "20000"), (Some("60S"), "20000"), (Some("2S"), "1900"), (Some("50m"), "25")]
        {
            let answer = call("/wait", timeout).await;
            let body = axum::body::to_bytes(answer.into_body(), 100).await.unwrap();
            assert_eq!(body, expected, "{timeout:?}");
        }
    }
}
