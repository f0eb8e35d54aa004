//! `health …` and `leaks …`.

use proto::v1::health_client::HealthClient;
use proto::v1::*;
use serde_json::json;

use super::deployments::parse_json;
use super::instances::{amount, cpu};
use super::{ALL, Context, pages};
use crate::args::{HealthCommand, Leaks, LeaksCommand, Switch};
use crate::call;
use crate::client::request_id;
use crate::console::{Cell, Column, Listing, column, rfc3339};
use crate::error::Error;

pub(super) async fn health(context: &mut Context<'_>, command: HealthCommand) -> Result<(), Error> {
    match command {
        HealthCommand::Agents => agents(context).await,
        HealthCommand::Deployments => deployments(context).await,
        HealthCommand::Shards => shards(context).await,
        HealthCommand::Resurrection { state } => resurrection(context, state).await,
    }
}

const AGENTS: &[Column] = &[
    column("Agent", "id"),
    column("Deployment", "deployment"),
    column("Instance", "instance"),
    column("Health", "health"),
    column("Since", "since"),
    column("Watched by", "watcher"),
    column("Jobs", "job_state"),
    column("CPU user, sys, wait", "cpu"),
    column("Memory", "memory"),
    column("Heard", "heard_ms_ago"),
    column("", "processes"),
    column("", "vitals"),
];

/// What an agent said of itself last, as far as any replica knows.
fn said(report: Option<AgentReport>) -> Result<[Cell; 6], Error> {
    let Some(report) = report else { return Ok([const { Cell::None }; 6]) };
    // One agent that makes no sense hides no other.
    let vitals = parse_json(&report.vitals_json, "an agent's vitals").unwrap_or_default();
    let ago = format!("{} s ago", report.age_ms / 1000);
    Ok([
        Cell::State(report.job_state),
        cpu(&vitals).into(),
        amount(&vitals["mem"]).into(),
        Cell::Both(ago, json!(report.age_ms)),
        Cell::Number(report.processes.into()),
        Cell::Both(String::new(), vitals),
    ])
}

async fn agents(context: &mut Context<'_>) -> Result<(), Error> {
    let found = pages(ALL, async |page| {
        let request = ListAgentsRequest { deployment: context.deployment_or_all(), page: Some(page) };
        let answer = call!(context.fleet, HealthClient.agents(request)).await?;
        Ok((answer.agents, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let mut listing = Listing::new("agents", AGENTS);
    for agent in found.rows {
        let [jobs, cpu, memory, heard, processes, vitals] = said(agent.report)?;
        listing.row([
            agent.id.into(),
            agent.deployment.into(),
            agent.instance.into(),
            Cell::State(agent.health),
            Cell::Time(agent.since_unix_ms),
            Cell::nonzero(agent.watcher),
            jobs,
            cpu,
            memory,
            heard,
            processes,
            vitals,
        ]);
    }
    context.console.list(&listing.as_of(found.revision))
}

const DEPLOYMENTS: &[Column] = &[
    column("Deployment", "deployment"),
    column("Health", "health"),
    column("Instances", "instances"),
    column("Dead", "dead"),
    column("Suspect", "suspect"),
    column("Without VM", "missing"),
    column("In work", "in_work"),
    column("Meltdown", "meltdown"),
];

async fn deployments(context: &mut Context<'_>) -> Result<(), Error> {
    let found = pages(ALL, async |page| {
        let request = ListDeploymentHealthRequest { page: Some(page) };
        let answer = call!(context.fleet, HealthClient.deployments(request)).await?;
        Ok((answer.deployments, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let listing = Listing::of("deployments", DEPLOYMENTS, found.rows, |health| {
        [
            health.deployment.into(),
            Cell::State(health.state),
            Cell::Number(health.instances.into()),
            Cell::Number(health.dead.into()),
            Cell::Number(health.suspect.into()),
            Cell::Number(health.missing.into()),
            Cell::Flag(health.in_work),
            health.meltdown.map_or(Cell::None, meltdown),
        ]
    });
    context.console.list(&listing.as_of(found.revision))
}

fn meltdown(meltdown: Meltdown) -> Cell {
    let Meltdown { unhealthy, total, since_unix_ms } = meltdown;
    let since = rfc3339(since_unix_ms);
    let text = format!(
        "nothing is resurrected: {unhealthy} of {total} have failed, since {}",
        since.as_deref().unwrap_or("-")
    );
    Cell::Both(text, json!({ "unhealthy": unhealthy, "total": total, "since": since }))
}

const SHARDS: &[Column] = &[
    column("Replica", "node"),
    column("Agents", "agents"),
    column("Connected", "connected"),
    column("Deployments", "deployments"),
];

async fn shards(context: &mut Context<'_>) -> Result<(), Error> {
    let answer = call!(context.fleet, HealthClient.shards(ListShardsRequest {})).await?;
    let listing = Listing::of("shards", SHARDS, answer.shards, |shard| {
        [
            Cell::Number(shard.node),
            Cell::Number(shard.agents.into()),
            Cell::Number(shard.connected.into()),
            watched(shard.deployments, shard.deployment_count),
        ]
    });
    let text = format!("Shard map {}\n\n{}", answer.map_number, listing.to_table(context.console.screen));
    let whole = json!({
        "map_number": answer.map_number,
        "revision": answer.as_of_revision,
        "shards": listing.to_json(),
    });
    context.console.say(&text, &whole)
}

/// Returns the names that were sent, and how many more there are.
fn watched(names: Vec<String>, count: u32) -> Cell {
    let more = u64::from(count).saturating_sub(names.len() as u64);
    let mut shown = names.clone();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    let text = if shown.is_empty() { "-".into() } else { shown.join("\n") };
    Cell::Both(text, json!({ "count": count, "first": names }))
}

async fn resurrection(context: &mut Context<'_>, state: Switch) -> Result<(), Error> {
    let paused = state == Switch::Off;
    let request = SetResurrectionRequest { request_id: request_id(), paused };
    call!(context.fleet, HealthClient.set_resurrection(request)).await?;
    let text = if paused { "Resurrection is off: the dead stay dead." } else { "Resurrection is on." };
    context.console.say(text, &json!({ "resurrection": !paused }))
}

const LEAKS: &[Column] = &[
    column("ID", "id"),
    column("What", "what"),
    column("Task", "task"),
    column("Since", "at"),
    column("Looked for", "looked_for_seconds"),
];

/// Shows for how long the director still looks for what may appear by itself.
fn looked_for(ms: u64) -> Cell {
    match ms.div_ceil(1000) {
        0 => Cell::nonzero(0),
        seconds => Cell::Both(format!("{seconds} s more"), json!(seconds)),
    }
}

pub(super) async fn leaks(context: &mut Context<'_>, args: Leaks) -> Result<(), Error> {
    let Some(LeaksCommand::Clear { id }) = args.command else {
        let found = pages(ALL, async |page| {
            let request = ListLeaksRequest { page: Some(page) };
            let answer = call!(context.fleet, HealthClient.leaks(request)).await?;
            Ok((answer.leaks, answer.next_page_token, answer.as_of_revision))
        })
        .await?;
        let listing = Listing::of("leaks", LEAKS, found.rows, |leak| {
            [
                Cell::Number(leak.id),
                leak.what.into(),
                Cell::nonzero(leak.task),
                Cell::Time(leak.at_unix_ms),
                looked_for(leak.looked_for_ms),
            ]
        });
        return context.console.list(&listing.as_of(found.revision));
    };
    let request = ClearLeakRequest { request_id: request_id(), id };
    call!(context.fleet, HealthClient.clear_leak(request)).await?;
    context.console.say(&format!("Leak {id} is off the list."), &json!({ "id": id }))
}
