//! Deployments and variables.

use async_trait::async_trait;
use model::DeploymentName;
use model::task::DeployOptions;
use proto::v1 as pb;
use proto::v1::deployments_server::Deployments;
use proto::v1::variables_server::Variables;
use service::ops::{DeploymentSummary, DiffLine, ErrandRun};
use service::{List, ServiceError};
use tonic::{Request, Response, Status};

use state::records::Variable;

use super::convert::{deploy_options, filter, freshness, page};
use super::request_id;
use crate::door::Door;
use crate::error_map::{internal, status};
use crate::expiry;

fn summary(deployment: DeploymentSummary) -> pb::DeploymentSummary {
    let release = |r: model::instance::ReleaseRef| pb::ReleaseRef {
        name: r.name.to_string(),
        version: r.version.to_string(),
    };
    pb::DeploymentSummary {
        name: deployment.name.to_string(),
        releases: deployment.releases.into_iter().map(release).collect(),
        stemcells: deployment
            .stemcells
            .into_iter()
            .map(|(name, version)| format!("{name}/{version}"))
            .collect(),
        locked_by: deployment.locked_by.map_or(0, |t| t.0),
        deployed: deployment.deployed,
        teams: deployment.teams,
    }
}

#[async_trait]
impl Deployments for Door {
    async fn deploy(&self, request: Request<pb::DeployRequest>) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let options = deploy_options(wish.options);
        let id = request_id(&wish.request_id);
        let task = self
            .service
            .deploy(&caller, id, wish.manifest, options, &wish.context_id)
            .await
            .map_err(status)?;
        Ok(Response::new(pb::TaskStarted { task_id: task.0 }))
    }

    async fn plan(&self, request: Request<pb::PlanRequest>) -> Result<Response<pb::PlanResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let options = DeployOptions { dry_run: true, ..deploy_options(wish.options) };
        let id = request_id(&wish.request_id);
        let id = self.service.deploy(&caller, id, wish.manifest, options, "").await.map_err(status)?;
        let task = self.service.wait_for_task(&caller, id).await.map_err(status)?.task;
        match task.error {
            Some(error) => Err(status(ServiceError::Told(error))),
            None => Ok(Response::new(pb::PlanResponse { explanation: task.result.unwrap_or_default() })),
        }
    }

    async fn diff(&self, request: Request<pb::DiffRequest>) -> Result<Response<pb::DiffResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let found = self.service.diff(&caller, None, &wish.manifest, wish.no_redact).await.map_err(status)?;
        let line = |line: DiffLine| pb::DiffLine { text: line.text, change: line.change.name().into() };
        let config_ids = found.cloud_configs.iter().chain(&found.runtime_configs).map(|id| id.0).collect();
        Ok(Response::new(pb::DiffResponse { lines: found.lines.into_iter().map(line).collect(), config_ids }))
    }

    async fn list(
        &self,
        request: Request<pb::ListDeploymentsRequest>,
    ) -> Result<Response<pb::ListDeploymentsResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let listed = self.service.deployments(&caller, freshness(wish.freshness), &page(wish.page)).await;
        let List { rows, next_page_token, revision } = listed.map_err(status)?;
        Ok(Response::new(pb::ListDeploymentsResponse {
            deployments: rows.into_iter().map(summary).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }

    async fn get(
        &self,
        request: Request<pb::GetDeploymentRequest>,
    ) -> Result<Response<pb::DeploymentDetails>, Status> {
        let caller = self.caller(&request).await?;
        let name = DeploymentName::new(request.into_inner().name);
        let (found, manifest) = self.service.deployment(&caller, &name).await.map_err(status)?;
        Ok(Response::new(pb::DeploymentDetails { summary: Some(summary(found)), manifest }))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteDeploymentRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let (id, name) = (request_id(&wish.request_id), DeploymentName::new(wish.name));
        let task = self.service.delete_deployment(&caller, id, &name, wish.force, &wish.context_id).await;
        Ok(Response::new(pb::TaskStarted { task_id: task.map_err(status)?.0 }))
    }

    async fn run_errand(
        &self,
        request: Request<pb::RunErrandRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let (id, name) = (request_id(&wish.request_id), DeploymentName::new(wish.deployment));
        let run = ErrandRun {
            errand: wish.errand,
            keep_alive: wish.keep_alive,
            when_changed: wish.when_changed,
            instances: wish.instances.into_iter().map(filter).collect(),
        };
        let task = self.service.run_errand(&caller, id, &name, run).await;
        Ok(Response::new(pb::TaskStarted { task_id: task.map_err(status)?.0 }))
    }

    async fn list_errands(
        &self,
        request: Request<pb::ListErrandsRequest>,
    ) -> Result<Response<pb::ListErrandsResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let listed = self.service.errands(&caller, DeploymentName::new(wish.name), &page(wish.page)).await;
        let List { rows: errands, next_page_token, revision } = listed.map_err(status)?;
        Ok(Response::new(pb::ListErrandsResponse { errands, next_page_token, as_of_revision: revision.0 }))
    }
}

#[async_trait]
impl Variables for Door {
    async fn list(
        &self,
        request: Request<pb::ListVariablesRequest>,
    ) -> Result<Response<pb::ListVariablesResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let listed =
            self.service.variables(&caller, DeploymentName::new(wish.deployment), &page(wish.page)).await;
        let List { rows, next_page_token, revision } = listed.map_err(status)?;
        let row = |(name, version, kind): (model::VariableName, u64, String)| pb::Variable {
            name: name.to_string(),
            version,
            r#type: kind,
        };
        Ok(Response::new(pb::ListVariablesResponse {
            variables: rows.into_iter().map(row).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }

    async fn get(
        &self,
        request: Request<pb::GetVariableRequest>,
    ) -> Result<Response<pb::VariableValue>, Status> {
        let caller = self.caller(&request).await?;
        let name = request.into_inner().name.into();
        let variable = self.service.variable(&caller, &name).await.map_err(status)?;
        let value = self.vault.open(name.as_str(), &variable.sealed).map_err(|e| internal(e.to_string()))?;
        Ok(Response::new(pb::VariableValue {
            name: name.to_string(),
            version: variable.version,
            value_json: value.to_string().into_bytes().into(),
        }))
    }

    async fn list_deployments(
        &self,
        request: Request<pb::ListVariableDeploymentsRequest>,
    ) -> Result<Response<pb::ListVariableDeploymentsResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let listed =
            self.service.deployments_with_variable(&caller, wish.name.into(), &page(wish.page)).await;
        let List { rows, next_page_token, revision } = listed.map_err(status)?;
        let row = |(deployment, version): (DeploymentName, u64)| pb::VariableDeployment {
            deployment: deployment.to_string(),
            version,
        };
        Ok(Response::new(pb::ListVariableDeploymentsResponse {
            deployments: rows.into_iter().map(row).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }

    async fn list_certificates(
        &self,
        request: Request<pb::ListCertificatesRequest>,
    ) -> Result<Response<pb::ListCertificatesResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let listed =
            self.service.certificates(&caller, DeploymentName::new(wish.deployment), &page(wish.page)).await;
        let List { rows, next_page_token, revision } = listed.map_err(status)?;
        let row = |variable: Variable| {
            let ends_at = expiry::of(&*self.vault, &variable)?;
            Some(pb::Certificate {
                name: variable.name.to_string(),
                version: variable.version,
                expires_at_unix_ms: ends_at.0,
                days_left: expiry::days_left(ends_at),
            })
        };
        Ok(Response::new(pb::ListCertificatesResponse {
            certificates: rows.into_iter().filter_map(row).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }
}
