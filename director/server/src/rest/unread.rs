//! Bodies that no handler has read: of whoever is refused before anybody looks at them.
//!
//! With HTTP/1 the next request comes behind the body. Where the answer is ready before the body has arrived, hyper closes the
//! connection and says nothing of that in the answer: a client that keeps connections sends its next request into one that is
//! gone. So what is left is read here before the answer goes out, or the answer says that the connection ends.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Error;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{CONNECTION, EXPECT};
use axum::http::{HeaderValue, Version};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

/// What is read of a body that nobody wants; more would only keep the client busy.
const LEFT_MAX: usize = 64 << 10;

/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A layer around all routes.
pub(super) async fn read_to_the_end(request: Request, next: Next) -> Response {
    if request.version() > Version::HTTP_11 || request.body().is_end_stream() {
        return next.run(request).await;
    }
    // Its body does not come before somebody reads.
    let waits_for_us = request.headers().contains_key(EXPECT);
    let (parts, body) = request.into_parts();
    let mut rest = Shared(Arc::new(Mutex::new(Reading { body, has_ended: false })));
    let mut answer = next.run(Request::from_parts(parts, Body::new(rest.clone()))).await;
    let is_read = rest.lock().has_ended || (!waits_for_us && rest.read_what_is_left().await);
    if !is_read {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// A body that the layer still has when the handler is done with it.
#[derive(Clone)]
struct Shared(Arc<Mutex<Reading>>);

struct Reading {
    body: Body,
    has_ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Reading> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the body has come to its end.
    async fn read_what_is_left(&mut self) -> bool {
        // Somebody goes on reading.
        if Arc::strong_count(&self.0) > 1 {
            return true;
        }
        let mut left = LEFT_MAX;
        let read = async {
            while let Some(frame) = self.frame().await {
                let bytes = frame.ok()?.data_ref().map_or(0, Bytes::len);
                left = left.checked_sub(bytes)?;
            }
            Some(())
        };
        matches!(tokio::time::timeout(PATIENCE, read).await, Ok(Some(())))
    }
}

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut reading = self.lock();
        let frame = ready!(Pin::new(&mut reading.body).poll_frame(context));
        reading.has_ended = frame.is_none() || reading.body.is_end_stream();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.lock().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().body.size_hint()
    }
}
