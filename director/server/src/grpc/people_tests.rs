//! Who may what: every method of the public API, by everybody, against the table of rights.

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use model::TaskId;
use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};
use state::command::{Command, Outcome};
use tonic::Code;

use super::rights_tests::{OPEN, ask_with, methods, router};
use crate::test_support::people::{PEOPLE, let_in, refused_first};
use crate::test_support::replica::Replica;
use crate::test_support::state::{EPOCH, deploy, queue};

/// What is sent: fields and their values, as texts. `PERSON` is who asks, `TASK` the task of team red.
type Fields = &'static [(&'static str, &'static str)];

const WEB: Fields = &[("deployment", "web"), ("name", "web")];
const MANIFEST: Fields = &[("manifest", "name: web\nreleases: []\n")];
const TASK: Fields = &[("id", "TASK"), ("no_wait", "1")];

/// Method, message, and who is let in (see [`let_in`]). What destroys comes last.
const TABLE: &[(&str, Fields, &str)] = &[
    ("Blobs/Download", &[], "A"),
    ("Blobs/Stat", &[], "R UR US"),
    ("Blobs/Upload", &[], "UR US"),
    ("CleanUp/Preview", &[], "A"),
    ("CleanUp/Start", &[], "A"),
    ("CloudCheck/ListProblems", WEB, "DA"),
    ("CloudCheck/Resolve", WEB, "DA"),
    ("CloudCheck/Scan", WEB, "DA"),
    ("CloudCheck/ScanAndFix", WEB, "DA"),
    ("Cluster/CreateJoinToken", &[], "A"),
    ("Cluster/CreateUserToken", &[("ttl_seconds", "60")], "R TA TR UR US XL XC XA XT XD"),
    ("Cluster/Info", &[], "anybody"),
    ("Cluster/ListCertificates", &[], "R"),
    ("Cluster/ListUserTokens", &[], "R TA TR UR US XL XC XA XT XD"),
    ("Cluster/ListUsers", &[], "A"),
    ("Cluster/ProbeClouds", &[], "A"),
    ("Cluster/PutUser", &[], "A"),
    ("Cluster/RemoveMember", &[("node", "77")], "A"),
    ("Cluster/RemoveUser", &[], "A"),
    ("Cluster/RevokeUserToken", &[], "R TA TR UR US XL XC XA XT XD"),
    ("Cluster/SaveSnapshot", &[], "A"),
    ("Cluster/Status", &[], "R"),
    ("Cluster/TransferLeader", &[("to", "77")], "A"),
    ("Configs/Get", &[("type", "x"), ("name", "one")], "R"),
    ("Configs/List", &[], "R TA TR"),
    ("Configs/Put", &[("type", "x"), ("name", "one"), ("content", "a: 2")], "DA"),
    ("Configs/Put", &[("type", "x"), ("name", "PERSON"), ("content", "a: 2")], "TA"),
    ("Deployments/Deploy", MANIFEST, "DA"),
    ("Deployments/Deploy", &[("manifest", "name: PERSON\nreleases: []\n")], "TA"),
    ("Deployments/Diff", MANIFEST, "DA"),
    ("Deployments/Get", WEB, "R DA DR"),
    ("Deployments/List", &[], "R TA"),
    ("Deployments/ListErrands", WEB, "R DA DR"),
    // A manifest that is none: nobody is there who would carry the plan out. Whose it is, is judged as in a deploy.
    ("Deployments/Plan", &[], "TA"),
    ("Deployments/RunErrand", WEB, "DA"),
    ("Disks/Attach", WEB, "A"),
    ("Disks/DeleteOrphaned", &[], "A"),
    ("Disks/ListOrphaned", &[], "A"),
    ("Disks/Orphan", &[], "A"),
    ("DynamicDisks/Attach", &[], "XA"),
    ("DynamicDisks/Create", &[], "XC"),
    ("DynamicDisks/Delete", &[], "XD"),
    ("DynamicDisks/Detach", &[], "XT"),
    ("DynamicDisks/List", &[], "XL"),
    ("DynamicDisks/Provide", &[], "XP"),
    ("Events/List", &[], "R TA TR"),
    ("Health/Agents", &[], "R"),
    ("Health/ClearLeak", &[], "A"),
    ("Health/Deployments", &[], "R"),
    ("Health/Leaks", &[], "R"),
    ("Health/SetResurrection", &[], "A"),
    ("Health/Shards", &[], "R"),
    ("Instances/ChangeState", WEB, "DA"),
    ("Instances/DeleteVm", &[], "A"),
    ("Instances/FetchLogs", WEB, "DA"),
    ("Instances/Ignore", WEB, "DA"),
    ("Instances/List", WEB, "R DA DR"),
    ("Instances/ListOrphanedVms", &[], "A"),
    ("Instances/Ssh", WEB, "DA"),
    ("Join/Join", &[], "anybody"),
    ("Links/Address", &[], "R TA TR"),
    ("Links/Create", &[], "TA"),
    ("Links/Delete", &[], "TA"),
    ("Links/List", WEB, "R DA DR"),
    ("Links/ListConsumers", WEB, "R DA DR"),
    ("Links/ListProviders", WEB, "R DA DR"),
    ("Locks/List", &[], "R"),
    ("Networks/DeleteOrphaned", &[], "A"),
    ("Networks/List", &[], "A"),
    ("Networks/SetManaged", &[], "A"),
    ("Releases/Delete", &[], "A"),
    ("Releases/Export", &[], "A"),
    ("Releases/Inspect", &[], "R TA"),
    ("Releases/List", &[], "R TA"),
    ("Releases/Upload", &[], "UR"),
    ("Snapshots/List", WEB, "DA"),
    ("Snapshots/Take", WEB, "DA"),
    ("Stemcells/Delete", &[], "A"),
    ("Stemcells/List", &[], "R TA"),
    ("Stemcells/Upload", &[], "US"),
    ("Tasks/Follow", TASK, "R DA DR"),
    ("Tasks/Follow", &[("id", "TASK"), ("no_wait", "1"), ("kind", "2")], "DA"),
    ("Tasks/Follow", &[("id", "TASK"), ("no_wait", "1"), ("kind", "3")], "DA"),
    ("Tasks/Get", TASK, "R DA"),
    ("Tasks/List", &[], "R TA"),
    ("Tasks/Steps", TASK, "R DA DR"),
    ("Variables/Get", &[], "A"),
    ("Variables/ListCertificates", WEB, "R DA DR"),
    ("Variables/ListDeployments", &[], "R TA"),
    ("Variables/List", WEB, "DA"),
    ("Watch/Watch", &[], "R"),
    ("Configs/Delete", &[("type", "x"), ("name", "one")], "DA"),
    ("Snapshots/Delete", WEB, "DA"),
    ("Deployments/Delete", WEB, "DA"),
    ("Tasks/Cancel", TASK, "A"),
];

/// The messages that methods take.
fn requests() -> BTreeMap<String, DescriptorProto> {
    let files = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap().file;
    let public: Vec<_> = files.iter().filter(|file| file.package() == "directorate.v1").collect();
    let messages = public.iter().flat_map(|file| &file.message_type);
    let messages: BTreeMap<String, &DescriptorProto> =
        messages.map(|message| (format!(".directorate.v1.{}", message.name()), message)).collect();
    let services = public.iter().flat_map(|file| &file.service);
    let methods = services.flat_map(|service| service.method.iter().map(move |method| (service, method)));
    methods
        .map(|(service, method)| {
            (format!("{}/{}", service.name(), method.name()), messages[method.input_type()].clone())
        })
        .collect()
}

/// Writes a message; fields that it has not got are left out.
fn written(message: &DescriptorProto, fields: Fields, person: &str, task: TaskId) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        let Some(field) = message.field.iter().find(|field| field.name() == *name) else { continue };
        let value = value.replace("PERSON", person).replace("TASK", &task.to_string());
        let number = field.number() as u32;
        match field.r#type() {
            Type::String => prost::encoding::string::encode(number, &value, &mut bytes),
            _ => prost::encoding::uint64::encode(number, &value.parse().unwrap(), &mut bytes),
        }
    }
    bytes
}

/// Has team red own the deployment `web`, a task of it and a config.
async fn make_reds(replica: &Replica) -> TaskId {
    let reds = |command| Command::ForTeams {
        teams: vec!["red".into()],
        only_theirs: true,
        command: Box::new(command),
    };
    let filed = replica.must(reds(queue(deploy(), vec!["lock:deployment:web".into()]))).await;
    let Outcome::TaskQueued(task) = filed else { panic!("{filed:?}") };
    replica.must(Command::TaskTake { task, epoch: EPOCH }).await;
    let (kind, name, content) = ("x".into(), "one".into(), "a: 1".into());
    replica.must(reds(Command::ConfigPut { kind, name, content, expected_latest: None })).await;
    task
}

async fn code(router: &Router, method: &str, person: Option<&str>, message: &[u8]) -> Code {
    ask_with(router, method, person, message).await.code()
}

#[test]
fn the_table_names_every_method() {
    let named: BTreeSet<String> = TABLE.iter().map(|(method, ..)| (*method).to_owned()).collect();
    let methods = methods();
    let unnamed: Vec<_> = methods.difference(&named).collect();
    assert!(unnamed.is_empty(), "say in the table above who may: {unnamed:?}");
    let missing: Vec<_> = named.difference(&methods).collect();
    assert!(missing.is_empty(), "there are no such methods: {missing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_lets_in_just_those_whom_the_table_names() {
    let replica = Replica::start().await;
    replica.put_people().await;
    let task = make_reds(&replica).await;
    let (router, requests) = (router(&replica), requests());
    assert_eq!(let_in("anybody").len(), PEOPLE.len());
    let mut wrong = Vec::new();
    for (method, fields, words) in TABLE {
        let message = |person: &str| written(&requests[*method], fields, person, task);
        if !OPEN.contains(method) && code(&router, method, None, &message("")).await != Code::Unauthenticated
        {
            wrong.push(format!("{method} without a login"));
        }
        for (name, is_let_in) in refused_first(words) {
            let code = code(&router, method, Some(name), &message(name)).await;
            if (code == Code::PermissionDenied) == is_let_in
                || (code == Code::Unauthenticated && is_let_in && *method != "Join/Join")
            {
                wrong.push(format!("{method} {fields:?} as {name}: {code:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    replica.stop().await;
}
