//! Variables: names and versions for whoever owns the deployment, one value at a time for admins.

use model::{DeploymentName, ErrorCode, VariableName};
use state::State;
use state::records::Variable;

use super::deployments::{owned, readable};
use crate::{Access, Caller, List, Page, Read, Right, Service, ServiceError};

impl Service {
    /// Lists the variables of a deployment's last success.
    pub async fn variables(
        &self,
        caller: &Caller,
        deployment: DeploymentName,
        page: &Page,
    ) -> Result<List<(VariableName, u64, String)>, ServiceError> {
        let caller = caller.clone();
        self.list(Read::Linearizable, page, move |state, page| {
            owned(state, &caller, &deployment, "list variables")?;
            let pins = state.deployed_variable_set(&deployment).map(|set| set.pins).unwrap_or_default();
            let (pins, next) = page.cut(pins, |(name, _)| name.clone())?;
            let row = |(name, version)| {
                let kind = state.variable(&name, version).map(|v| v.kind).unwrap_or_default();
                (name, version, kind)
            };
            Ok((pins.into_iter().map(row).collect(), next))
        })
        .await
    }

    /// Lists the deployments whose last success saw a variable, with the version that they saw: those that the caller may look
    /// at.
    pub async fn deployments_with_variable(
        &self,
        caller: &Caller,
        variable: VariableName,
        page: &Page,
    ) -> Result<List<(DeploymentName, u64)>, ServiceError> {
        caller.needs(Right::ReadOrTeamAdmin, "list deployments")?;
        let caller = caller.clone();
        self.list(Read::Linearizable, page, move |state, page| {
            let deployments = state.deployments_from(page.after()?.as_ref());
            let theirs = deployments.filter(|found| caller.owns(&found.teams, Access::Read, "").is_ok());
            let uses = theirs.filter_map(|found| {
                let set = state.deployed_variable_set(&found.name)?;
                Some((found.name, *set.pins.get(&variable)?))
            });
            page.cut(uses, |(deployment, _)| deployment.clone())
        })
        .await
    }

    /// Lists the certificates among the variables of a deployment's last success, still sealed: the door opens them to see
    /// when they end, and shows nothing else of them.
    pub async fn certificates(
        &self,
        caller: &Caller,
        deployment: DeploymentName,
        page: &Page,
    ) -> Result<List<Variable>, ServiceError> {
        let caller = caller.clone();
        self.list(Read::Linearizable, page, move |state, page| {
            readable(state, &caller, &deployment, "list certificates")?;
            let pins = state.deployed_variable_set(&deployment).map(|set| set.pins).unwrap_or_default();
            let pinned = pins.iter().filter_map(|(name, version)| state.variable(name, *version));
            page.cut(pinned.filter(|variable| variable.kind == "certificate"), |variable| {
                variable.name.clone()
            })
        })
        .await
    }

    /// Returns the newest version of a variable, still sealed: the door opens it for an admin.
    pub async fn variable(&self, caller: &Caller, name: &VariableName) -> Result<Variable, ServiceError> {
        caller.needs(Right::Admin, "read values of variables")?;
        let looked = self.look(Read::Linearizable).await?;
        State::new(&*looked.view).latest_variable(name).ok_or_else(|| {
            ServiceError::told(ErrorCode::ConfigServerMissingName, format!("there is no variable '{name}'"))
        })
    }
}
