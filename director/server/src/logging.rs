//! Logs for people or collectors, and traces where a collector is configured.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::config::{Config, LogFormat};

/// Ends the export of traces when it is dropped: what waits is sent.
#[derive(Default)]
pub struct Logging(Option<SdkTracerProvider>);

impl Drop for Logging {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take() {
            // At the very end there is nobody left to tell.
            let _ = provider.shutdown();
        }
    }
}

/// Starts logging as the configuration says. Keep the result for as long as the program runs.
pub fn start(config: &Config) -> anyhow::Result<Logging> {
    let filter = EnvFilter::try_new(&config.log_filter)
        .with_context(|| format!("log.filter: `{}` is not a filter", config.log_filter))?;
    let output = match config.log_format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(std::io::stderr).boxed()
        }
        LogFormat::Json => tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr).boxed(),
    };
    let provider = match &config.otlp {
        None => None,
        Some(endpoint) => Some(exporter(endpoint, &config.name)?),
    };
    let traces = provider.as_ref().map(|p| tracing_opentelemetry::layer().with_tracer(p.tracer("directord")));
    tracing_subscriber::registry().with(filter).with(output).with(traces).init();
    Ok(Logging(provider))
}

fn exporter(endpoint: &str, name: &str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
    let exporter = exporter.with_context(|| format!("otlp.endpoint: `{endpoint}` can't be used"))?;
    let resource = opentelemetry_sdk::Resource::builder()
        .with_service_name("directord")
        .with_attribute(opentelemetry::KeyValue::new("service.instance.id", name.to_owned()))
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}
