//! What a collector is sent: one trace for each task, whoever works on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, ensure};
use chaos_tests::cluster::{CloudKind, Cluster, SETTLE};
use chaos_tests::deploying::DEPLOY_LIMIT;
use chaos_tests::needs::{self, Need};
use chaos_tests::wait;
use chaos_tests::workload::{Hello, Net, upload_hello};
use cpi_sim::{Knobs, Span as Delay};
use directord::traces;
use model::TaskId;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use owned_tasks::{OnExit, OwnedTasks};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// Which replica sent which span.
type Received = Arc<Mutex<Vec<(String, Span)>>>;

/// A collector that keeps what it is sent.
struct Collector(Received);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut received = self.0.lock().map_err(|_| Status::internal("another export has panicked"))?;
        for sent in request.into_inner().resource_spans {
            let attributes = sent.resource.map(|resource| resource.attributes).unwrap_or_default();
            let replica = attributes.into_iter().find(|attribute| attribute.key == "service.instance.id");
            let replica = format!("{:?}", replica.and_then(|attribute| attribute.value));
            let spans = sent.scope_spans.into_iter().flat_map(|scope| scope.spans);
            received.extend(spans.map(|span| (replica.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test]
async fn a_task_is_one_trace_though_two_leaders_worked_on_it() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let (received, tasks) = (Received::default(), OwnedTasks::new());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let collector = TraceServiceServer::new(Collector(received.clone()));
    tasks.spawn("collector", OnExit::Ignore, async move |_| {
        let server = tonic::transport::Server::builder().add_service(collector);
        let _ = server.serve_with_incoming(TcpListenerStream::new(listener)).await;
    });

    let action = Delay { min_ms: 100, max_ms: 200 };
    let cloud = CloudKind::Sim { seed: 1, knobs: Knobs { action, ..Knobs::default() } };
    let config = format!("[otlp]\nendpoint = \"{endpoint}\"\n[log]\nformat = \"json\"\n");
    let mut cluster = Cluster::start_with(3, cloud, &config).await?;
    upload_hello(&cluster, Net::Simulated).await?;
    let client = cluster.client()?;
    let cluster_id = client.status().await?.cluster_id;
    let id = client.deploy(&Hello { instances: 3, ..Hello::default() }.manifest(), "traced").await?;
    wait::until_true("some steps are done", SETTLE, async || {
        let units = client.steps(id).await?;
        Ok(units.iter().flat_map(|unit| &unit.steps).filter(|step| step.outcome == "done").count() >= 3)
    })
    .await?;
    // In order, so that it sends what it has: a collector learns nothing of what was killed.
    let leader = cluster.leader().await?;
    cluster.terminate(leader).await?;
    client.done(id, DEPLOY_LIMIT).await?;
    cluster.run(leader)?;
    cluster.wait_for_voter(leader).await?;

    let trace = traces::of_task(&cluster_id, TaskId(id)).trace_id().to_bytes().to_vec();
    let of_task = || -> Result<Vec<(String, Span)>> {
        let received = received.lock().ok().context("no export has panicked")?;
        Ok(received.iter().filter(|(_, span)| span.trace_id == trace).cloned().collect())
    };
    wait::until_true("both leaders' spans have arrived", SETTLE, async || {
        let spans = of_task()?;
        let senders: BTreeSet<&String> =
            spans.iter().filter(|(_, span)| span.name == "task").map(|(sender, _)| sender).collect();
        Ok(senders.len() == 2)
    })
    .await?;
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for (_, span) in of_task()? {
        *names.entry(span.name).or_default() += 1;
    }
    assert!(names["unit"] >= 3 && names["step"] > names["unit"], "{names:?}");
    // The other tasks have traces of their own.
    let traces: BTreeSet<Vec<u8>> = {
        let received = received.lock().ok().context("no export has panicked")?;
        received
            .iter()
            .filter(|(_, span)| span.name == "task")
            .map(|(_, span)| span.trace_id.clone())
            .collect()
    };
    assert!(traces.len() >= 3, "uploads and deploy: {}", traces.len());
    // Whoever reads logs finds the trace, too, at every line about the task.
    let hex: String = trace.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut about_task = 0;
    for number in 1..=cluster.size() {
        about_task += check_log(&cluster.log_of(number)?, id, &hex)?;
    }
    assert!(about_task >= 3, "{about_task} lines of all logs are about the task");
    cluster.finish().await
}

/// Errs unless every line of a log is JSON, and those from within a task tell its trace; returns how many these are.
fn check_log(log: &str, task: u64, trace: &str) -> Result<usize> {
    ensure!(!log.is_empty(), "the log is empty");
    let mut about_task = 0;
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        for field in ["timestamp", "level", "target"] {
            ensure!(text(&line[field]).is_some(), "no {field} in {line}");
        }
        ensure!(line["fields"]["message"].is_string(), "no message in {line}");
        let spans = line["spans"].as_array().into_iter().flatten();
        for span in spans.filter(|span| text(&span["task"]) == Some(task.to_string())) {
            ensure!(text(&span["trace"]).as_deref() == Some(trace), "another trace than {trace} in {line}");
            about_task += 1;
        }
    }
    Ok(about_task)
}
