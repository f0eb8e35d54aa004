//! Lists page by page, and what they say beside their rows.

use model::task::{DeployOptions, TaskKind};
use service::{Page, Read};
use state::command::Command;

use crate::fleet::{Fleet, admin, caller};
use crate::nouns::{EPOCH, deploy, queue, stemcell_record, user};

fn page(token: &str) -> Page {
    Page { size: 2, token: token.into() }
}

#[tokio::test]
async fn a_list_is_whole_though_rows_go_and_come_between_its_pages() {
    let fleet = Fleet::new();
    for name in ["a", "b", "c", "d", "e"] {
        fleet.world().must(Command::UserPut { user: user(name) });
    }
    let service = fleet.service();
    let first = service.users(&admin(), &page("")).await.unwrap();
    assert_eq!(first.revision, fleet.world().revision());
    // With an offset, `c` would now be skipped.
    fleet.world().must(Command::UserRemove { name: "a".into() });
    let second = service.users(&admin(), &page(&first.next_page_token)).await.unwrap();
    let third = service.users(&admin(), &page(&second.next_page_token)).await.unwrap();
    let names: Vec<_> =
        [first.rows, second.rows, third.rows].concat().into_iter().map(|u| u.name.to_string()).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    assert_eq!(third.next_page_token, "");
    assert!(service.users(&admin(), &page("2")).await.is_err(), "a token of another list");
}

#[tokio::test]
async fn tasks_come_newest_first() {
    let fleet = Fleet::new();
    for _ in 0..5 {
        fleet.world().must(queue(deploy(), Vec::new()));
    }
    let service = fleet.service();
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let list = service.tasks(&admin(), true, None, &page(&token)).await.unwrap();
        seen.extend(list.rows.into_iter().map(|view| view.task.id.0));
        if list.next_page_token.is_empty() {
            break;
        }
        token = list.next_page_token;
    }
    assert_eq!(seen, [5, 4, 3, 2, 1]);
}

#[tokio::test]
async fn a_dry_run_waits_for_nobody() {
    let fleet = Fleet::new();
    let service = fleet.service();
    let deploying = |dry_run| {
        let options = DeployOptions { dry_run, ..DeployOptions::default() };
        let (service, manifest) = (service.clone(), "name: web".to_owned());
        async move { service.deploy(&admin(), None, manifest, options, "").await.unwrap() }
    };
    let (real, dry, next) = (deploying(false).await, deploying(true).await, deploying(false).await);
    let list = service.tasks(&admin(), true, None, &Page::default()).await.unwrap();
    let waits = |id| list.rows.iter().find(|view| view.task.id == id).unwrap().waits_for.clone();
    assert_eq!((waits(dry), waits(next)), (vec![], vec![real]));
    assert_eq!(service.locks(&admin(), &Page::default()).await.unwrap().rows.len(), 1);
    assert!(service.errands(&admin(), "none".into(), &Page::default()).await.is_err());
    assert!(service.instances(&admin(), "none".into(), Read::Local, &Page::default()).await.is_err());
}

#[tokio::test]
async fn a_stemcell_is_needed_until_every_cloud_has_it() {
    let fleet = Fleet::new();
    let needed = || async {
        let service = fleet.service();
        let record = stemcell_record("1", "d").stemcell;
        service.is_stemcell_needed(&admin(), record.name, "1".into()).await.unwrap()
    };
    let put = |cpi: &str| {
        let mut stemcell = stemcell_record("1", "d");
        stemcell.stemcell.cpi = cpi.into();
        let kind = TaskKind::UploadStemcell { blob: "b".into(), fix: false };
        let task = fleet.world().queue(kind, &[]);
        fleet.world().must(Command::TaskTake { task, epoch: EPOCH });
        fleet.world().must(Command::StemcellPut { task, epoch: EPOCH, stemcell });
    };
    assert!(needed().await);
    put("");
    assert!(!needed().await, "the default cloud has it");
    let content = "cpis:\n- {name: east, type: t}\n- {name: west, type: t}\n".into();
    let (kind, name) = ("cpi".into(), "default".into());
    fleet.world().must(Command::ConfigPut { kind, name, content, expected_latest: None });
    put("east");
    assert!(needed().await, "the other one has not");
    put("west");
    assert!(!needed().await);
}

#[tokio::test]
async fn secrets_in_configs_are_for_admins() {
    let fleet = Fleet::new();
    let content = "addons:\n- name: a\n  jobs:\n  - name: j\n    properties: {password: hunter2}\n";
    let put = Command::ConfigPut {
        kind: "runtime".into(),
        name: "default".into(),
        content: content.into(),
        expected_latest: None,
    };
    fleet.world().must(put);
    let service = fleet.service();
    for (scope, seen) in [("bosh.admin", true), ("bosh.read", false)] {
        let caller = caller(scope);
        let (one, _) = service.config(&caller, None, "runtime", "default").await.unwrap();
        let mut shown = vec![one.content];
        for history in [true, false] {
            let list =
                service.configs(&caller, "".into(), "".into(), history, &Page::default()).await.unwrap();
            shown.push(list.rows[0].0.content.clone());
        }
        assert_eq!(shown.iter().all(|text| text.contains("hunter2")), seen, "{scope}: {shown:?}");
        assert!(shown.iter().all(|text| text.contains("password")));
    }
}
