//! Requests as BOSH's agent takes them: a method's name and its arguments, with URLs that are made as it is asked. They stand in
//! no plan and in no book, since whoever has one gets the blob; and whoever asks again asks with others, of a replica that is there.

use agent_api::{AgentError, Method, PackageBlob, Reply, Request};
use base64::Engine as _;
use model::{AgentId, BlobDigest};
use serde_json::{Map, Value, json};

use crate::blobs::{AgentBlobs, NotBrought};

/// What a spec names an agent's way to a blob.
const SIGNED_URL: &str = "signed_url";

/// What is sent. It may hold URLs and secrets: it has no `Debug`.
pub(crate) struct Message {
    pub method: &'static str,
    pub arguments: Vec<Value>,
}

/// Returns what an agent is sent for a request. What it brings has the request's id for its name: a repeat brings the same.
pub(crate) fn message(blobs: &dyn AgentBlobs, agent: &AgentId, request: &Request) -> Message {
    let method = &request.method;
    let mut message = Message { method: method.name(), arguments: method.arguments() };
    match method {
        Method::UploadBlob { content, .. } => {
            if let Some(first) = message.arguments.first_mut() {
                first["payload"] = base64::engine::general_purpose::STANDARD.encode(content).into();
            }
        }
        Method::Prepare { .. } | Method::Apply { .. } => {
            if let Some(spec) = message.arguments.first_mut() {
                sign_packages(blobs, agent, spec);
            }
        }
        Method::SyncDns { blob, digest, version } => {
            if let Some(url) = blobs.url_to_get(agent, blob) {
                let arguments = json!({ "signed_url": url, "multi_digest": digest, "version": version });
                return Message { method: "sync_dns_with_signed_url", arguments: vec![arguments] };
            }
        }
        Method::CompilePackage { source, name, version, dependencies } => {
            let put = blobs.url_to_put(agent, request.id.as_str());
            if let (Some(get), Some(put)) = (blobs.url_to_get(agent, &source.blob), put) {
                let deps: Map<String, Value> = dependencies
                    .iter()
                    .map(|package| (package.name.to_string(), dependency(blobs, agent, package)))
                    .collect();
                let arguments = json!({ "package_get_signed_url": get, "upload_signed_url": put,
                    "digest": source.digest, "name": name, "version": version, "deps": deps });
                return Message { method: "compile_package_with_signed_url", arguments: vec![arguments] };
            }
        }
        Method::FetchLogs { kind, filters } => {
            if let Some(url) = blobs.url_to_put(agent, request.id.as_str()) {
                let arguments = json!({ "signed_url": url, "log_type": kind, "filters": filters });
                return Message { method: "fetch_logs_with_signed_url", arguments: vec![arguments] };
            }
        }
        _ => {}
    }
    message
}

fn dependency(blobs: &dyn AgentBlobs, agent: &AgentId, package: &PackageBlob) -> Value {
    let (content, url) = (&package.content, blobs.url_to_get(agent, &package.content.blob));
    json!({ "name": package.name, "version": package.version, "sha1": content.digest, "blobstore_id": content.blob,
        "package_get_signed_url": url })
}

/// Returns whether a message of this method may hold URLs, which name a replica that may go away.
pub(crate) fn may_hold_urls(method: &Method) -> bool {
    matches!(
        method,
        Method::Prepare { .. }
            | Method::Apply { .. }
            | Method::CompilePackage { .. }
            | Method::FetchLogs { .. }
    )
}

/// Puts the address of the blob that an agent has brought into the answer that tells of it.
pub(crate) async fn with_address(
    blobs: &dyn AgentBlobs,
    agent: &AgentId,
    request: &Request,
    mut reply: Reply,
) -> Result<Reply, AgentError> {
    let result = match request.method {
        Method::CompilePackage { .. } => reply.0.get_mut("result").and_then(Value::as_object_mut),
        Method::FetchLogs { .. } => reply.0.as_object_mut(),
        _ => return Ok(reply),
    };
    let failed = |message: String| AgentError::Failed { method: request.method.name(), message };
    let text = |result: &Map<String, Value>, key: &str| result.get(key)?.as_str().map(str::to_owned);
    let told = result.and_then(|result| Some((text(result, "sha1")?, result)));
    let Some((digest, result)) = told else {
        return Err(failed("the agent's answer has no digest of what it has uploaded".to_owned()));
    };
    // Who was given no URL has given it a name of its own.
    let name = text(result, "blobstore_id").unwrap_or_else(|| request.id.to_string());
    match blobs.brought(agent, &name, &digest).await {
        Ok(brought) => {
            result.insert("blobstore_id".into(), json!(brought.blob));
            result.insert("size".into(), json!(brought.size_bytes));
            Ok(reply)
        }
        Err(NotBrought::Unavailable { .. }) => Err(AgentError::Unreachable { agent: agent.clone() }),
        Err(other) => Err(failed(other.to_string())),
    }
}

/// Tells an agent where each package of a spec is. The rendered templates it has already, by `upload_blob`.
fn sign_packages(blobs: &dyn AgentBlobs, agent: &AgentId, spec: &mut Value) {
    for package in packages(spec) {
        let Some(blob) = package["blobstore_id"].as_str().map(BlobDigest::new) else { continue };
        if let Some(url) = blobs.url_to_get(agent, &blob) {
            package[SIGNED_URL] = url.into();
        }
    }
}

/// Leaves out of an answer what is nobody's affair: a state repeats the spec, with the URLs that were in it.
pub(crate) fn without_urls(method: &Method, mut reply: Reply) -> Reply {
    if let Method::GetState { .. } = method {
        for package in packages(&mut reply.0) {
            if let Some(package) = package.as_object_mut() {
                package.remove(SIGNED_URL);
            }
        }
    }
    reply
}

fn packages(spec: &mut Value) -> impl Iterator<Item = &mut Value> {
    let packages = spec.get_mut("packages").and_then(Value::as_object_mut);
    packages.into_iter().flat_map(|packages| packages.values_mut())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use agent_api::{BlobRef, Mode};
    use async_trait::async_trait;
    use model::Epoch;

    use super::*;
    use crate::blobs::Brought;

    /// Signs for agent `new`, and not for others; agents bring nothing but `ab` under the name `r`.
    struct Signs;

    #[async_trait]
    impl AgentBlobs for Signs {
        fn url_to_get(&self, agent: &AgentId, blob: &BlobDigest) -> Option<String> {
            (agent.as_str() == "new").then(|| format!("https://d/{blob}?signature=s"))
        }

        fn url_to_put(&self, agent: &AgentId, name: &str) -> Option<String> {
            (agent.as_str() == "new").then(|| format!("https://d/put/{name}?signature=s"))
        }

        async fn brought(&self, _agent: &AgentId, name: &str, digest: &str) -> Result<Brought, NotBrought> {
            match name {
                "r" => Ok(Brought { blob: BlobDigest::new(format!("ab-{digest}")), size_bytes: 7 }),
                "away" => Err(NotBrought::Unavailable { reason: "no majority".into() }),
                _ => Err(NotBrought::Nowhere),
            }
        }
    }

    fn request(id: &str, method: &Method) -> Request {
        let (timeout, method) = (Duration::from_secs(1), method.clone());
        Request { id: id.into(), epoch: Epoch(1), mode: Mode::Submit, timeout, method }
    }

    fn sent(agent: &str, method: &Method) -> (&'static str, Value) {
        let message = message(&Signs, &agent.into(), &request("r", method));
        (message.method, message.arguments.into())
    }

    fn blob(id: &str) -> BlobRef {
        BlobRef { blob: id.into(), digest: format!("sha256:{id}") }
    }

    fn compile() -> Method {
        let dependency = PackageBlob { name: "q".into(), version: "2.1".into(), content: blob("cd") };
        let (name, version) = ("p".into(), "1.1".into());
        Method::CompilePackage { source: blob("ab"), name, version, dependencies: vec![dependency] }
    }

    #[test]
    fn a_package_is_compiled_from_url_to_url() {
        let expected = json!([{ "package_get_signed_url": "https://d/ab?signature=s",
            "upload_signed_url": "https://d/put/r?signature=s", "digest": "sha256:ab", "name": "p", "version": "1.1",
            "deps": { "q": { "name": "q", "version": "2.1", "sha1": "sha256:cd", "blobstore_id": "cd",
                "package_get_signed_url": "https://d/cd?signature=s" } } }]);
        assert_eq!(sent("new", &compile()), ("compile_package_with_signed_url", expected));
        let plain = json!(["ab", "sha256:ab", "p", "1.1",
            { "q": { "name": "q", "version": "2.1", "sha1": "sha256:cd", "blobstore_id": "cd" } }]);
        assert_eq!(sent("old", &compile()), ("compile_package", plain));
    }

    #[test]
    fn logs_are_brought_to_a_url() {
        let logs = Method::FetchLogs { kind: "job".into(), filters: None };
        let expected =
            json!([{ "signed_url": "https://d/put/r?signature=s", "log_type": "job", "filters": null }]);
        assert_eq!(sent("new", &logs), ("fetch_logs_with_signed_url", expected));
        assert_eq!(sent("old", &logs), ("fetch_logs", json!(["job", null])));
    }

    #[tokio::test]
    async fn an_answer_tells_the_address_of_what_was_brought() {
        let agent = AgentId::new("a");
        let told = |id: &str, method: Method, value: Value| {
            let request = request(id, &method);
            async move { with_address(&Signs, &AgentId::new("a"), &request, Reply(value)).await }
        };
        let logs = || Method::FetchLogs { kind: "job".into(), filters: None };
        let expected = Ok(Reply(json!({ "result": { "sha1": "d", "blobstore_id": "ab-d", "size": 7 } })));
        assert_eq!(told("r", compile(), json!({ "result": { "sha1": "d" } })).await, expected);
        let expected = Ok(Reply(json!({ "sha1": "d", "blobstore_id": "ab-d", "size": 7 })));
        assert_eq!(told("r", logs(), json!({ "sha1": "d" })).await, expected);
        let own_name = json!({ "sha1": "d", "blobstore_id": "r" });
        assert_eq!(told("another", logs(), own_name).await, expected, "under a name of its own");
        let away = told("away", logs(), json!({ "sha1": "d" })).await;
        assert_eq!(away, Err(AgentError::Unreachable { agent }));
        for (method, value) in [
            (logs(), json!({ "sha1": "d" })),
            (logs(), json!({ "blobstore_id": "r" })),
            (logs(), json!("d")),
            (compile(), json!({ "sha1": "d" })),
        ] {
            let failed = told("nothing", method, value.clone()).await;
            assert!(matches!(failed, Err(AgentError::Failed { .. })), "{value}: {failed:?}");
        }
    }

    #[test]
    fn packages_of_a_spec_have_urls_and_archives_that_the_agent_has_none() {
        let spec = json!({ "packages": { "p": { "name": "p", "blobstore_id": "ab" } },
            "rendered_templates_archive": { "blobstore_id": "rendered-1" } });
        for method in [Method::Apply { spec: spec.clone() }, Method::Prepare { spec: spec.clone() }] {
            let mut signed = spec.clone();
            signed["packages"]["p"]["signed_url"] = json!("https://d/ab?signature=s");
            assert_eq!(sent("new", &method), (method.name(), json!([signed])));
            assert_eq!(sent("old", &method), (method.name(), json!([spec])), "it asks its blobstore");
            let told = without_urls(&Method::GetState { full: false }, Reply(signed));
            assert_eq!(told, Reply(spec.clone()));
        }
        let bind = Method::Apply { spec: json!({ "job": {} }) };
        assert_eq!(sent("new", &bind), ("apply", json!([{ "job": {} }])));
    }

    #[test]
    fn records_are_told_with_a_url_to_whoever_takes_one() {
        let records = Method::SyncDns { blob: "ab".into(), digest: "sha256:ab".into(), version: 7 };
        let url = "https://d/ab?signature=s";
        let expected = json!([{ "signed_url": url, "multi_digest": "sha256:ab", "version": 7 }]);
        assert_eq!(sent("new", &records), ("sync_dns_with_signed_url", expected));
        assert_eq!(sent("old", &records), ("sync_dns", json!(["ab", "sha256:ab", 7])));
    }

    #[test]
    fn the_content_of_an_upload_travels_with_it() {
        let upload = Method::UploadBlob { id: "b".into(), digest: "d".into(), content: b"foo".to_vec() };
        let expected = json!([{ "blob_id": "b", "checksum": "d", "payload": "Zm9v" }]);
        assert_eq!(sent("new", &upload), ("upload_blob", expected));
    }
}
