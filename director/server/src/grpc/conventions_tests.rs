//! Walks every method of the public API, from the descriptors that reflection serves: what `common.proto` promises of all of
//! them holds for one that is added without anybody thinking of it, too.

use std::collections::BTreeMap;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};

use super::rights_tests::{OPEN, READS};

/// Changes nothing, though reading it takes more than `bosh.read`.
const SECRET_READS: &[&str] = &[
    "Blobs/Download",
    "CloudCheck/ListProblems",
    "Cluster/ListCertificates",
    "Cluster/ListUserTokens",
    "Cluster/ListUsers",
    "Cluster/ProbeClouds",
    "Variables/Get",
];

/// Changes something, and may be repeated without a `request_id`.
const REPEATABLE: &[(&str, &str)] =
    &[("Blobs/Upload", "a blob is named by its digest: sent twice, it is there once")];

/// Answers with all there is at once.
const BOUNDED: &[(&str, &str)] = &[
    ("CleanUp/Preview", "no more than one clean-up takes: 1,000 of a kind"),
    ("Blobs/Stat", "one entry for each replica"),
    ("Cluster/ListCertificates", "the fleet's, and those of the replica that answers"),
    ("Cluster/ProbeClouds", "one entry for each replica"),
    ("Cluster/Status", "one entry for each replica"),
    ("Join/Join", "one entry for each replica"),
    ("Health/Shards", "one entry for each replica"),
    ("Deployments/Diff", "as long as the two manifests"),
    ("Releases/Inspect", "as long as the release's manifest"),
    ("Tasks/Get", "one entry for each task that holds a lock"),
];

/// One method with what goes in and out.
struct Method {
    name: String,
    request: DescriptorProto,
    response: DescriptorProto,
    is_streaming: bool,
}

/// Every method of the public API.
fn methods() -> Vec<Method> {
    let files = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap().file;
    let public = || files.iter().filter(|file| file.package() == "directorate.v1");
    let messages: BTreeMap<String, &DescriptorProto> = public()
        .flat_map(|file| &file.message_type)
        .map(|message| (format!(".directorate.v1.{}", message.name()), message))
        .collect();
    let services = public().flat_map(|file| &file.service);
    let methods = services.flat_map(|service| service.method.iter().map(move |m| (service, m)));
    let described = methods.map(|(service, method)| Method {
        name: format!("{}/{}", service.name(), method.name()),
        request: messages[method.input_type()].clone(),
        response: messages[method.output_type()].clone(),
        is_streaming: method.server_streaming(),
    });
    described.collect()
}

/// Returns whether a message has a field of this name and type; `None` stands for text.
fn has(message: &DescriptorProto, field: &str, of_type: Option<&str>) -> bool {
    let is_it = |r#type: Type, type_name: &str| match of_type {
        Some(wanted) => r#type == Type::Message && type_name == wanted,
        None => r#type == Type::String,
    };
    message.field.iter().any(|f| f.name() == field && is_it(f.r#type(), f.type_name()))
}

#[test]
fn every_mutation_takes_a_request_id() {
    let methods = methods();
    assert!(methods.len() > 40, "{}", methods.len());
    let repeatable: Vec<&str> = REPEATABLE.iter().map(|(name, _)| *name).collect();
    let without = [OPEN, READS, SECRET_READS, &repeatable].concat();
    let (reads, mutations): (Vec<_>, Vec<_>) =
        methods.iter().partition(|method| without.contains(&method.name.as_str()));
    assert_eq!(reads.len(), without.len(), "something is listed here and does not exist, or twice");
    let lacking: Vec<&str> = mutations
        .iter()
        .filter(|method| !has(&method.request, "request_id", None))
        .map(|method| method.name.as_str())
        .collect();
    assert!(lacking.is_empty(), "{lacking:?} can't be repeated safely");
    // What is listed as a read is one: only what is repeated with care has such an id.
    let caring: Vec<&str> = reads
        .iter()
        .filter(|method| has(&method.request, "request_id", None))
        .map(|method| method.name.as_str())
        .collect();
    assert!(caring.is_empty(), "{caring:?} take a request_id and are listed as reads");
}

#[test]
fn every_list_is_paged() {
    let methods = methods();
    let is_list = |method: &Method| {
        let is_long = method.response.field.iter().any(|field| field.label() == Label::Repeated);
        // A stream has no end to be cut at.
        !method.is_streaming && (is_long || method.request.name().starts_with("List"))
    };
    let (lists, others): (Vec<_>, Vec<_>) = methods.iter().partition(|method| is_list(method));
    assert!(lists.len() > 15, "{}", lists.len());
    let mut wrong = Vec::new();
    for method in &lists {
        let token_in = has(&method.request, "page", Some(".directorate.v1.Page"));
        let token_out = has(&method.response, "next_page_token", None);
        let bounded = BOUNDED.iter().any(|(name, _)| *name == method.name);
        if (token_in, token_out) != (!bounded, !bounded) {
            wrong.push(format!("{}: page {token_in}, next_page_token {token_out}", method.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (name, _) in BOUNDED {
        assert!(lists.iter().any(|method| method.name == *name), "{name} is listed here and is no list");
    }
    // And nothing is paged that is none.
    let paged = others.iter().find(|method| has(&method.request, "page", Some(".directorate.v1.Page")));
    assert!(paged.is_none(), "{:?}", paged.map(|method| &method.name));
}
