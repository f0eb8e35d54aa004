//! Links: who may see and change them, what is refused under which number, and what is told again.

use model::ErrorCode;
use model::link::Links;
use model::step::{Action, StepOutcome};
use model::{LinkId, LinkProviderId, RequestId};
use service::ops::{AddressWish, NewLink};
use service::{Page, Service, ServiceError};
use state::command::{Command, TaskEnd};

use crate::fleet::{Fleet, admin, caller};
use crate::nouns::{EPOCH, links, plan_of};

/// A deployment `web` that offers a link, shared or not, and consumes it.
fn with_links(shared: bool) -> (Fleet, Service) {
    let fleet = Fleet::new();
    deploy(&fleet, links("srv", shared));
    let service = fleet.service();
    (fleet, service)
}

fn deploy(fleet: &Fleet, planned: Links) {
    let mut world = fleet.world();
    let mut plan = plan_of(vec![Action::SaveDeployment]);
    plan.dns_subjects = vec![model::dns::DnsSubject::Zone("z1".into())];
    plan.record.as_mut().unwrap().planned_links = Some(Box::new(planned));
    let task = world.planned(plan);
    world.step(task, 1, 0, StepOutcome::Done);
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });
}

fn external(provider: &str, consumer: &str, network: Option<&str>) -> NewLink {
    NewLink { provider: provider.into(), consumer: consumer.into(), network: network.map(Into::into) }
}

fn wish(link: Option<&str>, azs: &[&str], status: Option<&str>) -> AddressWish {
    let azs = azs.iter().map(|az| (*az).to_owned()).collect();
    AddressWish { link: link.map(str::to_owned), azs, status: status.map(str::to_owned), deployment: None }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, ServiceError>, code: ErrorCode, text: &str) {
    match answer.unwrap_err() {
        ServiceError::Told(told) => {
            assert_eq!((told.code, &told.message[..]), (code.number(), text));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn links_are_listed_of_a_deployment_that_is_named_and_there() {
    let (_fleet, service) = with_links(true);
    let page = Page { size: 1, ..Page::default() };
    let first = service.link_consumers(&admin(), &"web".into(), &page).await.unwrap();
    assert_eq!((first.rows[0].alias.as_str(), first.rows.len()), ("front", 1));
    let page = Page { token: first.next_page_token, ..page };
    let second = service.link_consumers(&admin(), &"web".into(), &page).await.unwrap();
    assert_eq!((second.rows[0].alias.as_str(), second.next_page_token.as_str()), ("db", ""));
    let missing = (ErrorCode::DeploymentNameRequired, "Deployment name is required");
    let unknown = (ErrorCode::DeploymentNotFound, "Deployment 'no' doesn't exist");
    for (name, (code, text)) in [("", missing), ("no", unknown)] {
        let (name, page) = (name.into(), Page::default());
        refused(service.links(&admin(), &name, &page).await, code, text);
        refused(service.link_providers(&admin(), &name, &page).await, code, text);
        refused(service.link_consumers(&admin(), &name, &page).await, code, text);
    }
    let reader = caller("bosh.read");
    assert_eq!(service.links(&reader, &"web".into(), &Page::default()).await.unwrap().rows.len(), 1);
    assert!(service.link_address(&reader, &wish(Some("1"), &[], None)).await.is_ok());
    let forbidden = service.create_link(&reader, None, external("1", "ext", None)).await;
    assert!(matches!(forbidden, Err(ServiceError::Forbidden { .. })));
    let forbidden = service.delete_link(&reader, None, "1").await;
    assert!(matches!(forbidden, Err(ServiceError::Forbidden { .. })));
}

#[tokio::test]
async fn what_somebody_outside_asks_for_is_refused_with_its_number() {
    let (_fleet, service) = with_links(true);
    for (new, code, text) in [
        (
            external("", "x", None),
            ErrorCode::LinkCreateError,
            "Invalid request: `link_provider_id` must be provided",
        ),
        (
            external("1", "", None),
            ErrorCode::LinkCreateError,
            "Invalid request: `link_consumer.owner_object.name` must not be empty",
        ),
        (external("9", "x", None), ErrorCode::LinkProviderLookupError, "Invalid link_provider_id: 9"),
        (external("a", "x", None), ErrorCode::LinkProviderLookupError, "Invalid link_provider_id: a"),
        (
            external("1", "x", Some("n")),
            ErrorCode::LinkNetworkLookupError,
            "Can't resolve network: `n` in provider id: 1 for `x`",
        ),
    ] {
        refused(service.create_link(&admin(), None, new).await, code, text);
    }
    let (_fleet, service) = with_links(false);
    let answer = service.create_link(&admin(), None, external("1", "x", None)).await;
    refused(answer, ErrorCode::LinkProviderNotShared, "Provider not `shared`");
    let answer = service.delete_link(&admin(), None, "1").await;
    refused(answer, ErrorCode::LinkNotExternal, "Error deleting link: not a external link");
    for id in ["9", "x"] {
        let text = format!("Invalid link id: {id}");
        refused(service.delete_link(&admin(), None, id).await, ErrorCode::LinkNotFound, &text);
    }
}

#[tokio::test]
async fn somebody_outside_is_connected_once_however_often_that_is_asked_for() {
    let (fleet, service) = with_links(true);
    let key = || Some(RequestId::from("r1"));
    let made = service.create_link(&admin(), key(), external("1", "ext", None)).await.unwrap();
    assert_eq!((made.id, made.provider), (LinkId(2), Some(LinkProviderId(1))));
    for key in [key(), None] {
        let again = service.create_link(&admin(), key, external("1", "ext", None)).await.unwrap();
        assert_eq!(again, made);
    }
    // What it is connected to is not offered any more: the link stays, and says so.
    deploy(&fleet, Links::default());
    let left = service.links(&admin(), &"web".into(), &Page::default()).await.unwrap().rows;
    assert_eq!((left.len(), left[0].id, left[0].provider), (1, LinkId(2), None));
    let address = service.link_address(&admin(), &wish(Some("2"), &[], None)).await.unwrap();
    assert_eq!(address.unwrap(), "q-s0.srv.a.web.bosh");
    // Sent again without its answer having come, a deletion is done.
    let key = || Some(RequestId::from("r2"));
    service.delete_link(&admin(), key(), "2").await.unwrap();
    service.delete_link(&admin(), key(), "2").await.unwrap();
    refused(service.delete_link(&admin(), None, "2").await, ErrorCode::LinkNotFound, "Invalid link id: 2");
}

#[tokio::test]
async fn an_address_is_asked_for_with_zones_and_a_status_that_there_are() {
    let (_fleet, service) = with_links(true);
    for (wish, address) in [
        (wish(Some("1"), &[], None), "q-s0.srv.a.web.bosh"),
        (wish(Some("1"), &["z1"], Some("healthy")), "q-a1s3.srv.a.web.bosh"),
        (wish(Some("1"), &[], Some("unhealthy")), "q-s1.srv.a.web.bosh"),
        (wish(Some("1"), &[], Some("all")), "q-s4.srv.a.web.bosh"),
        (wish(Some("1"), &[], Some("default")), "q-s0.srv.a.web.bosh"),
    ] {
        assert_eq!(service.link_address(&admin(), &wish).await.unwrap().unwrap(), address);
    }
    let statuses = r#"status must be a one of: ["healthy", "unhealthy", "all", "default"]"#;
    for (wish, code, text) in [
        (wish(None, &["z9"], Some("bogus")), ErrorCode::LinkIdRequired, "Link id is required"),
        (wish(Some("9"), &["z9"], Some("bogus")), ErrorCode::LinkInvalidAzs, "az z9 is not valid"),
        (wish(Some("9"), &[], Some("bogus")), ErrorCode::LinkInvalidStatus, statuses),
        (wish(Some("9"), &[], None), ErrorCode::LinkNotFound, "Could not find a link with id 9"),
        (wish(Some("x"), &[], None), ErrorCode::LinkNotFound, "Could not find a link with id x"),
    ] {
        refused(service.link_address(&admin(), &wish).await, code, text);
    }
}
