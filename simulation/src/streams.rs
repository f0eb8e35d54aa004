//! A stream from one process to another: what is sent in either direction arrives in order, until one of the two is gone.

use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use owned_tasks::{OnExit, OwnedTasks};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::net::{Link, Net, Place};
use crate::process::Job;
use crate::services::Services;

/// Messages of a stream that may wait where they arrived: far more than anybody ever has under way.
const STREAM_MAX: usize = 10_000;

/// Who opens a stream.
pub struct Opener<'a> {
    /// Over this network.
    pub net: &'a Net,
    /// From here.
    pub me: Place,
    /// What it sends is sent by these.
    pub tasks: &'a OwnedTasks,
}

impl Opener<'_> {
    /// Sends `requests` to process `to`, where `serve` answers them, and returns the answers. They end when the other
    /// process or its answers do; the requests, when nobody wants the answers any more.
    pub fn open<Up, Down, F>(
        self,
        to: u64,
        mut requests: BoxStream<'static, Up>,
        serve: impl Fn(Services, BoxStream<'static, Up>) -> Option<F> + Send + Sync + 'static,
    ) -> BoxStream<'static, Down>
    where
        Up: Send + 'static,
        Down: Send + 'static,
        F: Future<Output = Option<BoxStream<'static, Down>>> + Send + 'static,
    {
        let (answers_in, answers) = mpsc::channel(STREAM_MAX);
        let (opened, mut inlets) = mpsc::channel::<mpsc::Sender<Up>>(1);
        let (net, me, there) = (self.net.clone(), self.me, Place { process: to, life: 0 });
        // Opens the stream at the other end, once.
        let opening = {
            let (net, answers_in) = (net.clone(), Mutex::new(Some(answers_in)));
            move |services: Services| -> BoxFuture<'static, ()> {
                let taken = answers_in.lock().unwrap_or_else(PoisonError::into_inner).take();
                let (inlet, outlet) = mpsc::channel(STREAM_MAX);
                let serving = serve(services, ReceiverStream::new(outlet).boxed());
                let (Some(serving), Some(answers_in)) = (serving, taken) else {
                    return Box::pin(std::future::ready(()));
                };
                // Whoever opened may be gone; then nothing comes, and that is the end.
                let _ = opened.try_send(inlet);
                let net = net.clone();
                Box::pin(async move {
                    let Some(mut stream) = serving.await else { return };
                    let link = Link::default();
                    while let Some(answer) = stream.next().await {
                        let answers_in = answers_in.clone();
                        let hand = move || drop(answers_in.try_send(answer));
                        net.stream(there, me, &link, Box::new(hand));
                    }
                })
            }
        };
        net.open(me, to, Arc::new(opening) as Job);
        let dropped = CancellationToken::new();
        let unwanted = dropped.clone();
        self.tasks.spawn("stream", OnExit::Ignore, move |stop| async move {
            let Some(inlet) = inlets.recv().await else { return };
            let link = Link::default();
            loop {
                let request = tokio::select! {
                    biased;
                    request = requests.next() => request,
                    () = inlet.closed() => None,
                    () = stop.cancelled() => None,
                    () = unwanted.cancelled() => None,
                };
                let Some(request) = request else { return };
                let inlet = inlet.clone();
                net.stream(me, there, &link, Box::new(move || drop(inlet.try_send(request))));
            }
        });
        // Who does not want the answers any more sends no requests either.
        let guard = dropped.drop_guard();
        let answers = ReceiverStream::new(answers).map(move |answer| {
            let _ends_with_the_stream = &guard;
            answer
        });
        answers.boxed()
    }
}
