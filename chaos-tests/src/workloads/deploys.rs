//! Deployments that grow and shrink, one deploy close behind the other, each followed by byte offset.

use std::time::Duration;

use anyhow::{Context as _, Result};
use checkers::output::{Followed, Piece, Reached};
use dctl::client::{ANSWER_BYTES_MAX, Kind as Failure, failure_kind};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use proto::v1::follow_task_request::Kind;
use proto::v1::tasks_client::TasksClient;
use proto::v1::{FollowTaskRequest, TaskOutput};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tonic::Streaming;

use super::Ground;
use crate::client::Client;
use crate::workload::Hello;

/// Pause of a deployer between looks at its task, and of a follower whose stream broke.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How often a deploy does not wait for the one before it: they queue for the deployment's lock.
const OVERLAPS: f64 = 0.3;

/// Tasks that wait for their followers: those come at once.
const FOLLOWERS_AHEAD: usize = 16;

/// Returns the name of a deployment.
pub fn deployment(number: usize) -> String {
    format!("hello-{number}")
}

/// Deploys one size and greeting after the other, and follows each deploy.
pub(super) async fn deploy(ground: &Ground, number: usize, instances_max: usize) -> Result<()> {
    let (to_followers, tasks) = mpsc::channel(FOLLOWERS_AHEAD);
    let deployer = deploy_all(ground, number, instances_max, to_followers);
    futures::future::try_join(deployer, follow_all(ground, number, tasks)).await.map(drop)
}

async fn deploy_all(
    ground: &Ground,
    number: usize,
    instances_max: usize,
    followers: mpsc::Sender<u64>,
) -> Result<()> {
    let client = ground.patient(number)?;
    let mut chance = ground.chance(2, number);
    let mut round = 0;
    while !ground.is_over() {
        round += 1;
        let request = format!("deploy {number} {round}");
        match client.deploy(&draw(&mut chance, number, instances_max).manifest(), &request).await {
            Ok(task) => {
                ground.notes().tasks.push(task);
                followers.send(task).await.context("the followers are there as long as the deployer")?;
                let overlaps = chance.random_bool(OVERLAPS);
                while !overlaps && !ground.is_over() && !is_over(&client, task).await.unwrap_or(false) {
                    ground.pause(LOOK_EVERY).await;
                }
            }
            Err(error) => ground.notes().unanswered.push(format!("{request}: {error:#}")),
        }
        ground.pause(LOOK_EVERY).await;
    }
    Ok(())
}

fn draw(chance: &mut StdRng, number: usize, instances_max: usize) -> Hello {
    Hello {
        name: deployment(number),
        instances: chance.random_range(1..=instances_max.max(1)),
        greeting: format!("Hello {}", chance.random_range(0..3)),
        max_in_flight: 2,
        // Every other deployment: disks outlive their VMs, and are orphaned when it shrinks.
        disk: (number % 2 == 1).then_some("small"),
        ..Hello::default()
    }
}

async fn is_over(client: &Client, task: u64) -> Result<bool> {
    let task = client.task(task).await.context("look at a task")?;
    Ok(["done", "error", "cancelled", "timeout"].contains(&task.state.as_str()))
}

/// Follows each task's events and debug log until it ends, or all is over.
async fn follow_all(ground: &Ground, number: usize, mut tasks: mpsc::Receiver<u64>) -> Result<()> {
    let mut followers = FuturesUnordered::new();
    loop {
        tokio::select! {
            task = tasks.recv() => match task {
                Some(task) => {
                    followers.push(follow(ground, number, task, Kind::Event));
                    followers.push(follow(ground, number + 1, task, Kind::Debug));
                }
                None => break,
            },
            Some(ended) = followers.next() => ended?,
        }
    }
    while let Some(ended) = followers.next().await {
        ended?;
    }
    Ok(())
}

/// Takes down one output as it comes, over as many streams as that takes.
async fn follow(ground: &Ground, first: usize, task: u64, kind: Kind) -> Result<()> {
    let client = ground.patient(first)?;
    let name = format!("task {task}, {}", kind.as_str_name().to_lowercase());
    let mut followed = Followed { name, pieces: Vec::new(), reached: Reached::Somewhere, stored: Vec::new() };
    while followed.reached == Reached::Somewhere && !ground.is_over() {
        let open = tokio::select! {
            open = open(&client, task, kind, reached(&followed)) => open,
            () = ground.stop.cancelled() => break,
        };
        match open {
            Ok(stream) => take_down(ground, stream, &mut followed).await?,
            Err(error) => {
                ground.notes().unanswered.push(format!("follow {}: {error:#}", followed.name));
                break;
            }
        }
        client.fleet.move_on();
        ground.pause(LOOK_EVERY).await;
    }
    ground.notes().followed.push((task, kind, followed));
    Ok(())
}

/// Returns the offset to go on from.
fn reached(followed: &Followed) -> u64 {
    followed.pieces.last().map_or(0, |piece| piece.offset + piece.bytes.len() as u64)
}

async fn open(client: &Client, task: u64, kind: Kind, offset: u64) -> Result<Streaming<TaskOutput>> {
    let request = FollowTaskRequest { id: task, kind: kind.into(), offset, no_wait: false };
    let open = client.fleet.open("TasksClient.follow", async |link| {
        let client = TasksClient::new(link).max_decoding_message_size(ANSWER_BYTES_MAX);
        { client }.follow(request).await
    });
    Ok(open.await?)
}

/// Takes down what comes until the stream breaks, the task has ended, or all is over.
async fn take_down(
    ground: &Ground,
    mut stream: Streaming<TaskOutput>,
    followed: &mut Followed,
) -> Result<()> {
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            () = ground.stop.cancelled() => return Ok(()),
        };
        match message {
            Ok(Some(message)) => {
                followed.pieces.push(Piece { offset: message.offset, bytes: message.data.to_vec() });
                if message.task.is_some() {
                    followed.reached = Reached::End;
                    return Ok(());
                }
            }
            Ok(None) => return Ok(()),
            Err(status) if failure_kind(&status) == Failure::Elsewhere => return Ok(()),
            Err(status) => return Err(status).with_context(|| format!("follow {}", followed.name)),
        }
    }
}
