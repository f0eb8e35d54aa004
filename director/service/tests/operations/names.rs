//! Names that deployments may have.

use model::ErrorCode;
use model::task::DeployOptions;
use service::ServiceError;

use crate::fleet::{Fleet, admin};

#[tokio::test]
async fn a_deployment_s_name_is_one_and_no_other_s() {
    let fleet = Fleet::new();
    let service = fleet.service();
    let deploy = |name: &str| {
        let (service, manifest) = (service.clone(), format!("name: {name:?}"));
        async move { service.deploy(&admin(), None, manifest, DeployOptions::default(), "").await }
    };
    // Its variable `x` would be the variable `b/x` of deployment `a`.
    let refused = deploy("a/b").await.unwrap_err();
    let ServiceError::Told(error) = refused else { panic!("{refused}") };
    assert_eq!(error.code, ErrorCode::ValidationInvalidValue.number(), "{error}");
    deploy("a_b").await.unwrap();
    let refused = deploy("a-b").await.unwrap_err();
    let ServiceError::Told(error) = refused else { panic!("{refused}") };
    assert_eq!((error.code, error.message.contains("taken by 'a_b'")), (190_009, true), "{error}");
    deploy("a_b").await.unwrap();
}
