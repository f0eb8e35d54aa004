//! One trace for each task: its id is derived from the fleet's and the task's, so that every replica that works on a task,
//! one after the other, adds to the same trace.

use executor::ports::TaskSpans;
use model::TaskId;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use ring::digest::{Context as Digest, SHA256};
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Returns the place under which everything about a task is traced.
pub fn of_task(cluster_id: &str, task: TaskId) -> SpanContext {
    let mut digest = Digest::new(&SHA256);
    digest.update(&task.0.to_be_bytes());
    digest.update(cluster_id.as_bytes());
    let digest = digest.finish();
    let bytes = |from: usize| digest.as_ref()[from..].iter().copied();
    let (mut trace, mut span) = ([0; 16], [0; 8]);
    trace.iter_mut().zip(bytes(0)).for_each(|(to, from)| *to = from);
    span.iter_mut().zip(bytes(16)).for_each(|(to, from)| *to = from);
    let (trace, span) = (TraceId::from_bytes(trace), SpanId::from_bytes(span));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default())
}

/// Opens spans of tasks in their traces. The trace's id is a field, so that every line of the log tells it, too.
pub fn task_spans(cluster_id: String) -> TaskSpans {
    TaskSpans::new(move |task, epoch| {
        let place = of_task(&cluster_id, task);
        let span = info_span!("task", %task, %epoch, trace = %place.trace_id());
        // Where no traces are exported, there is nothing to be placed.
        let _ = span.set_parent(Context::new().with_remote_span_context(place));
        span
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_has_one_trace_on_every_replica_and_no_other_task_has_it() {
        let place = |cluster, task| of_task(cluster, TaskId(task));
        assert_eq!(place("c1", 7), place("c1", 7));
        assert!(place("c1", 7).is_valid());
        for other in [place("c1", 8), place("c2", 7)] {
            assert_ne!(other.trace_id(), place("c1", 7).trace_id());
        }
    }
}
