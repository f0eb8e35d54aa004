//! Variables: names and versions for whoever owns the deployment, one value at a time for admins.

use model::{DeploymentName, ErrorCode, VariableName};
use state::State;
use state::records::Variable;

use super::deployments::owned;
use crate::{Caller, List, Page, Read, Right, Service, ServiceError};

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

    /// Returns the newest version of a variable, still sealed: the door opens it for an admin.
    pub async fn variable(&self, caller: &Caller, name: &VariableName) -> Result<Variable, ServiceError> {
        caller.needs(Right::Admin, "read values of variables")?;
        let looked = self.look(Read::Linearizable).await?;
        State::new(&*looked.view).latest_variable(name).ok_or_else(|| {
            ServiceError::told(ErrorCode::ConfigServerMissingName, format!("there is no variable '{name}'"))
        })
    }
}
