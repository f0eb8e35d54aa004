//! Compiled releases: who may have one exported, of what, and what of one need not be uploaded.

use model::instance::ReleaseRef;
use model::release::{CompiledPackage, PackageInfo, ReleaseVersion};
use model::stemcell::StemcellVersion;
use model::step::PackageRefKey;
use model::task::{DigestKind, ReleaseExport, TaskKind};
use model::{DeploymentName, LockName, RequestId, TaskId};
use service::ops::CleanUp;
use service::{Caller, ServiceError};
use state::command::Command;

use crate::fleet::{Fleet, admin, caller};
use crate::nouns::{EPOCH, release};

fn wish() -> ReleaseExport {
    ReleaseExport {
        release: ReleaseRef { name: "golden".into(), version: "1".into() },
        stemcell: StemcellVersion { os: "toronto-os".into(), version: "1".into() },
        jobs: vec!["server".into()],
        digest: DigestKind::Sha256,
    }
}

async fn ask(
    fleet: &Fleet,
    who: &Caller,
    id: Option<&str>,
    deployment: &str,
    wish: ReleaseExport,
) -> Result<TaskId, ServiceError> {
    fleet.service().export_release(who, id.map(RequestId::new), &DeploymentName::new(deployment), wish).await
}

#[tokio::test]
async fn an_export_waits_for_its_deployment_and_is_asked_for_once() {
    let fleet = Fleet::new();
    fleet.world().deploying();
    let task = ask(&fleet, &admin(), Some("r"), "web", wish()).await.unwrap();
    assert_eq!(ask(&fleet, &admin(), Some("r"), "web", wish()).await.unwrap(), task, "sent again");
    let filed = fleet.world().state().task(task).unwrap();
    assert_eq!(filed.kind, TaskKind::ExportRelease { export: Box::new(wish()) });
    assert_eq!(filed.locks, [LockName::new("lock:deployment:web")]);
    assert_eq!(filed.deployment, Some("web".into()));
    assert_eq!(filed.kind.description(), "export release: 'golden/1' for 'toronto-os/1'");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_when_it_is_asked_for() {
    let fleet = Fleet::new();
    fleet.world().deploying();
    let error = ask(&fleet, &admin(), None, "none", wish()).await.unwrap_err();
    let ServiceError::Told(told) = &error else { panic!("{error:?}") };
    assert_eq!((told.code, told.message.as_str()), (70000, "Deployment 'none' doesn't exist"));
    let many = ReleaseExport { jobs: vec!["j".repeat(70_000).as_str().into()], ..wish() };
    let error = ask(&fleet, &admin(), None, "web", many).await.unwrap_err();
    assert!(error.to_string().contains("65536 bytes"), "{error}");
    let refused = ask(&fleet, &caller("bosh.read"), None, "web", wish()).await;
    assert!(matches!(refused, Err(ServiceError::Forbidden { .. })), "{refused:?}");
}

#[tokio::test]
async fn what_is_here_need_not_be_uploaded() {
    let fleet = Fleet::new();
    let task = fleet.world().deploying();
    let package = |name: &str, source: Option<&str>| PackageInfo {
        name: name.into(),
        fingerprint: format!("fp-{name}").into(),
        digest: String::new(),
        source: source.map(Into::into),
        dependencies: Vec::new(),
    };
    let packages = vec![package("app", Some("b")), package("lib", None)];
    let key = |name: &str, stemcell: &str| PackageRefKey {
        name: name.into(),
        fingerprint: format!("fp-{name}").into(),
        os: "toronto-os".into(),
        stemcell_version: stemcell.into(),
        dependency_key: "[]".into(),
    };
    let compiled = CompiledPackage {
        key: key("lib", "1"),
        build: 1,
        blob: "b".into(),
        digest: String::new(),
        size_bytes: 1,
    };
    let release = Box::new(ReleaseVersion { packages, ..release("golden", "1") });
    let (compiled, fix, partial) = (vec![compiled], false, false);
    fleet.world().must(Command::ReleasePut { task, epoch: EPOCH, release, compiled, fix, partial });
    let service = fleet.service();
    let asked = [("app", "fp-app"), ("lib", "fp-lib"), ("app", "other"), ("other", "fp-app")];
    let asked: Vec<_> = asked.iter().map(|(name, print)| ((*name).into(), (*print).into())).collect();
    assert_eq!(service.sources_here(&admin(), &asked).await.unwrap(), ["fp-app".into()]);
    let other_dependencies = PackageRefKey { dependency_key: "[[\"a\",\"b\"]]".into(), ..key("lib", "1") };
    let asked = [key("lib", "1"), key("lib", "2"), key("app", "1"), other_dependencies];
    assert_eq!(service.compiled_here(&admin(), &asked).await.unwrap(), ["fp-lib".into()]);
    let reader = caller("bosh.read");
    assert!(service.sources_here(&reader, &[]).await.is_err());
    assert!(service.compiled_here(&reader, &[]).await.is_err());
}

#[tokio::test]
async fn what_was_exported_is_left_over() {
    let fleet = Fleet::new();
    let task = fleet.world().deploying();
    fleet.world().must(Command::ExportPut { task, epoch: EPOCH, digest: "archive".into() });
    let service = fleet.service();
    let found = service.leftovers(&admin(), CleanUp::default()).await.unwrap();
    assert_eq!(found.exports, ["archive".into()]);
    let task = service.clean_up(&admin(), None, CleanUp::default()).await.unwrap();
    let TaskKind::CleanUp { leftovers, .. } = fleet.world().state().task(task).unwrap().kind else {
        panic!("it cleans up");
    };
    assert_eq!(leftovers.exports, ["archive".into()]);
}
