//! Cloud check over gRPC.

use model::problem::Standing;
use model::task::Choice;
use model::{DeploymentName, ProblemId};
use proto::v1 as pb;
use proto::v1::cloud_check_server::CloudCheck;
use service::List;
use service::ops::Resolutions;
use tonic::{Request, Response, Status};

use super::artifacts::started;
use super::convert::{filter, given, page};
use super::request_id;
use crate::door::Door;
use crate::error_map::status;

#[tonic::async_trait]
impl CloudCheck for Door {
    async fn scan(&self, request: Request<pb::ScanRequest>) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let pb::ScanRequest { request_id: id, deployment } = request.into_inner();
        let name = DeploymentName::new(deployment);
        self.service.scan_cloud(&caller, request_id(&id), &name, "").await.map(started).map_err(status)
    }

    async fn list_problems(
        &self,
        request: Request<pb::ListProblemsRequest>,
    ) -> Result<Response<pb::ListProblemsResponse>, Status> {
        let caller = self.caller(&request).await?;
        let pb::ListProblemsRequest { deployment, page: wire } = request.into_inner();
        let name = DeploymentName::new(deployment);
        let List { rows, next_page_token, revision } =
            self.service.problems(&caller, name, &page(wire)).await.map_err(status)?;
        Ok(Response::new(pb::ListProblemsResponse {
            problems: rows.iter().map(problem).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }

    async fn resolve(
        &self,
        request: Request<pb::ResolveRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let pb::ResolveRequest { request_id: id, deployment, choices, max_in_flight } = request.into_inner();
        let choice = |wire: pb::ProblemChoice| Choice {
            problem: ProblemId(wire.problem_id),
            resolution: given(wire.resolution),
        };
        let resolutions = Resolutions {
            choices: choices.into_iter().map(choice).collect(),
            max_in_flight: max_in_flight.into_iter().map(|(group, limit)| (group.into(), limit)).collect(),
        };
        let name = DeploymentName::new(deployment);
        let task = self.service.resolve_problems(&caller, request_id(&id), &name, resolutions, "").await;
        task.map(started).map_err(status)
    }

    async fn scan_and_fix(
        &self,
        request: Request<pb::ScanAndFixRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let pb::ScanAndFixRequest { request_id: id, deployment, instances } = request.into_inner();
        let wanted: Vec<_> = instances.into_iter().map(filter).collect();
        let name = DeploymentName::new(deployment);
        let task = self.service.scan_and_fix(&caller, request_id(&id), &name, &wanted, "").await;
        task.map(started).map_err(status)
    }
}

fn problem(standing: &Standing) -> pb::Problem {
    let problem = &standing.problem;
    let fault = &problem.finding.fault;
    let resolution = |resolution: &model::problem::Resolution| pb::Resolution {
        name: resolution.name().into(),
        plan: fault.plan(*resolution).into(),
    };
    pb::Problem {
        id: problem.id.0,
        r#type: fault.type_name().into(),
        description: standing.description(),
        group: problem.finding.group.to_string(),
        instance_id: problem.finding.instance.to_string(),
        resolutions: standing.resolutions().iter().map(resolution).collect(),
        automatic: standing.automatic().name().into(),
    }
}
