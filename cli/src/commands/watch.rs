//! `watch`: changes as they happen, each once, over as many streams as it takes.

use std::io::Write as _;

use proto::v1::watch_client::WatchClient;
use proto::v1::{Change, WatchRequest};
use serde_json::json;
use tonic::{Code, Status};

use super::Context;
use crate::args::Watch;
use crate::client::{ANSWER_BYTES_MAX, Kind, failure_kind, refused};
use crate::console::Format;
use crate::error::Error;

pub(super) async fn watch(context: &mut Context<'_>, args: Watch) -> Result<(), Error> {
    let interrupted = tokio::signal::ctrl_c();
    tokio::select! {
        ended = stream(context, args) => ended,
        // That is how one stops watching.
        signal = interrupted => Ok(signal?),
    }
}

/// Watches until something ends it for good. The bookmark moves with every message, so that nothing comes twice.
async fn stream(context: &mut Context<'_>, args: Watch) -> Result<(), Error> {
    let mut reached = args.after;
    let mut patience = context.fleet.patience().reopening();
    loop {
        let request = WatchRequest { after_revision: reached, tables: args.tables.clone() };
        let mut stream = context
            .fleet
            .open("WatchClient.watch", async |link| {
                let client = WatchClient::new(link).max_decoding_message_size(ANSWER_BYTES_MAX);
                { client }.watch(request.clone()).await
            })
            .await
            .map_err(|error| match error {
                Error::Refused { status: Code::OutOfRange, .. } => compacted(reached.unwrap_or_default()),
                other => other,
            })?;
        patience.opened();
        let broken = loop {
            match stream.message().await {
                Ok(Some(message)) => {
                    patience.news();
                    for change in &message.changes {
                        // A replica that begins too early must not make us repeat ourselves.
                        if reached.is_none_or(|reached| change.revision > reached) {
                            print(context, change)?;
                        }
                    }
                    if reached.is_none() {
                        let text = format!("Watching from revision {} on", message.revision);
                        writeln!(context.console.err, "{text}")?;
                    }
                    reached = reached.max(Some(message.revision));
                    context.console.out.flush()?;
                }
                Ok(None) => break Status::new(Code::Unavailable, "the director ended the stream"),
                Err(status) => break status,
            }
        };
        if broken.code() == Code::OutOfRange {
            return Err(compacted(reached.unwrap_or_default()));
        }
        if failure_kind(&broken) == Kind::Final {
            return Err(refused("WatchClient.watch", &broken));
        }
        let Some(wait) = patience.broken() else {
            return Err(context.fleet.lost("WatchClient.watch", &broken));
        };
        context.fleet.move_on();
        tokio::time::sleep(wait).await;
    }
}

fn compacted(reached: u64) -> Error {
    Error::Refused {
        operation: "WatchClient.watch",
        code: None,
        status: Code::OutOfRange,
        message: format!(
            "the changes after revision {reached} are no longer kept: list what you need again, then watch from there"
        ),
    }
}

/// Prints a change: a line for people, a JSON object on a line for programs.
fn print(context: &mut Context<'_>, change: &Change) -> Result<(), Error> {
    let Change { revision, table, key, deleted } = change;
    match context.console.format {
        Format::People => {
            let verb = if *deleted { "deleted" } else { "changed" };
            writeln!(context.console.out, "{revision}  {verb}  {table}  {key}")?;
        }
        Format::Programs => {
            let line = json!({ "revision": revision, "table": table, "key": key, "deleted": deleted });
            writeln!(context.console.out, "{line}")?;
        }
    }
    Ok(())
}
