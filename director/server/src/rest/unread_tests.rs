//! Connections of clients whose bodies nobody reads.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::routing::{get, post};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use owned_tasks::{OnExit, OwnedTasks};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::Notify;

use super::unread::read_to_the_end;

/// Returns a connection to a server that refuses whatever is posted without a look at its body, and who is told when it has.
fn connection(tasks: &OwnedTasks) -> (DuplexStream, Arc<Notify>) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let refused = Arc::new(Notify::new());
    let told = refused.clone();
    let refuse = async move || {
        told.notify_one();
        StatusCode::UNAUTHORIZED
    };
    let router = Router::new()
        .route("/", post(refuse))
        .route("/next", get(async || "the next answer"))
        .layer(from_fn(read_to_the_end));
    tasks.spawn("connection", OnExit::Ignore, move |_| async move {
        let builder = Builder::new(TokioExecutor::new());
        let _ = builder.serve_connection(TokioIo::new(theirs), TowerToHyperService::new(router)).await;
    });
    (ours, refused)
}

async fn post_head(connection: &mut DuplexStream, headers: &str) {
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\n{headers}\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
}

/// Reads until what was read ends so, or to the end.
async fn read_until(connection: &mut DuplexStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let mut piece = [0; 1024];
        let length = connection.read(&mut piece).await.unwrap();
        if length == 0 {
            break;
        }
        text.push_str(std::str::from_utf8(&piece[..length]).unwrap());
    }
    text
}

#[tokio::test]
async fn a_body_that_comes_after_its_refusal_costs_no_connection() {
    let tasks = OwnedTasks::new();
    for (headers, body) in
        [("content-length: 5", "hello"), ("transfer-encoding: chunked", "5\r\nhello\r\n0\r\n\r\n")]
    {
        let (mut connection, refused) = connection(&tasks);
        post_head(&mut connection, headers).await;
        refused.notified().await;
        connection.write_all(body.as_bytes()).await.unwrap();
        let answer = read_until(&mut connection, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 401 ") && !answer.contains("connection: close"), "{answer}");

        connection.write_all(b"GET /next HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let answer = read_until(&mut connection, "the next answer").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{headers}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_sends_too_much_or_nothing_is_told_that_the_connection_ends() {
    let tasks = OwnedTasks::new();
    let too_much = "a".repeat(100_000);
    for (headers, body) in [
        ("content-length: 100000", too_much.as_str()),
        ("content-length: 5", ""),
        ("content-length: 5\r\nexpect: 100-continue", ""),
    ] {
        let (mut connection, refused) = connection(&tasks);
        post_head(&mut connection, headers).await;
        refused.notified().await;
        connection.write_all(body.as_bytes()).await.unwrap();
        let answer = read_until(&mut connection, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{headers}: {answer}");
        assert!(answer.contains("connection: close"), "{headers}: {answer}");
    }
}
