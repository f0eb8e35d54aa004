//! Serves the cloud to replicas.

use std::sync::Arc;

use cpi_api::CallPort as _;
use owned_tasks::{OnExit, OwnedTasks};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::cloud::SimCloud;
use crate::wire::{self, Answer, Question};

/// Calls under way at once; more wait in the socket's queue, as they would at a cloud's front door.
const CALLS_MAX: usize = 4096;

/// Serves `cloud` on `listener` until `stop`. Calls run in `tasks`.
pub async fn serve(listener: UnixListener, cloud: SimCloud, tasks: OwnedTasks, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CALLS_MAX));
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            () = stop.cancelled() => return,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let cloud = cloud.clone();
                tasks.spawn("cloud call", OnExit::Ignore, move |stop| async move {
                    let _place = place;
                    tokio::select! {
                        () = answer(stream, cloud) => {}
                        () = stop.cancelled() => {}
                    }
                });
            }
            Err(error) => {
                warn!(%error, "can't accept a call");
                // Out of descriptors: trying at once would only spin.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, cloud: SimCloud) {
    let question = match wire::read(&mut stream).await {
        Ok(question) => question,
        Err(error) => return debug!(%error, "a caller went away before it asked"),
    };
    let answer = match question {
        // Not cancelled when the caller goes away: a cloud does what it was asked.
        Question::Call { context, call } => cloud.call(context.as_deref(), *call).await.into(),
        Question::SetKnobs(knobs) => {
            cloud.set_knobs(*knobs);
            Answer::Done
        }
        Question::Statistics => Answer::Statistics(Box::new(cloud.statistics())),
        Question::Record => Answer::Record(Box::new(cloud.record())),
        Question::CrashVm(vm) => {
            cloud.crash_vm(&vm);
            Answer::Done
        }
    };
    if let Err(error) = wire::write(&mut stream, &answer).await {
        debug!(%error, "a caller went away before the answer");
    }
}
