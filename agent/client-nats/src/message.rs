//! Requests as BOSH's agent takes them: a method's name and its arguments, with URLs that are made as it is asked. They stand in
//! no plan and in no book, since whoever has one gets the blob; and whoever asks again asks with others, of a replica that is there.

use agent_api::{Method, Reply};
use base64::Engine as _;
use model::{AgentId, BlobDigest};
use serde_json::{Value, json};

use crate::blobs::AgentBlobs;

/// What a spec names an agent's way to a blob.
const SIGNED_URL: &str = "signed_url";

/// What is sent. It may hold URLs and secrets: it has no `Debug`.
pub(crate) struct Message {
    pub method: &'static str,
    pub arguments: Vec<Value>,
}

/// Returns what an agent is sent for a method.
pub(crate) fn message(blobs: &dyn AgentBlobs, agent: &AgentId, method: &Method) -> Message {
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
        _ => {}
    }
    message
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
    use super::*;

    /// Signs for agent `new`, and not for others.
    struct Signs;

    impl AgentBlobs for Signs {
        fn url_to_get(&self, agent: &AgentId, blob: &BlobDigest) -> Option<String> {
            (agent.as_str() == "new").then(|| format!("https://d/{blob}?signature=s"))
        }
    }

    fn sent(agent: &str, method: &Method) -> (&'static str, Value) {
        let message = message(&Signs, &agent.into(), method);
        (message.method, message.arguments.into())
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
