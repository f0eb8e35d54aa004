//! Cloud check: problems with VMs and disks, and what is done about them.

use std::collections::HashMap;

use proto::v1::cloud_check_client::CloudCheckClient;
use proto::v1::{
    ListProblemsRequest, Problem, ProblemChoice, ResolveRequest, ScanAndFixRequest, ScanRequest,
};

use super::deployments::selector;
use super::{ALL, Context, Found, pages};
use crate::args::{CloudCheck, Resurrect};
use crate::call;
use crate::client::request_id;
use crate::console::{Cell, Column, Format, Listing, column};
use crate::error::Error;
use crate::follow;

const PROBLEMS: &[Column] = &[
    column("#", "id"),
    column("Type", "type"),
    column("Description", "description"),
    column("Group", "group"),
    column("", "instance_id"),
    column("Resolutions", "resolutions"),
    column("", "automatic"),
];

/// What becomes of a problem.
enum Wish<'a> {
    /// Nothing: it is shown.
    Show,
    /// What can be done without a choice.
    Automatic,
    /// The first of these that goes with it.
    OneOf(&'a [String]),
}

impl Wish<'_> {
    fn of(&self, problem: &Problem) -> Option<String> {
        match self {
            Self::Show => None,
            Self::Automatic => Some(problem.automatic.clone()),
            Self::OneOf(names) => {
                let goes = |name: &&String| problem.resolutions.iter().any(|one| one.name == **name);
                names.iter().find(goes).cloned()
            }
        }
    }
}

pub(super) async fn check(context: &mut Context<'_>, args: CloudCheck) -> Result<(), Error> {
    let deployment = context.deployment()?;
    let request = ScanRequest { request_id: request_id(), deployment: deployment.clone() };
    let started = call!(context.fleet, CloudCheckClient.scan(request)).await?;
    follow::to_the_end(&context.fleet, context.console, started.task_id).await?;
    let found = problems(context, &deployment).await?;
    let wish = match (args.auto, args.resolutions.is_empty()) {
        (true, _) => Wish::Automatic,
        (false, false) => Wish::OneOf(&args.resolutions),
        (false, true) => Wish::Show,
    };
    let (count, wishes) = (found.rows.len(), choices(&found.rows, &wish));
    let groups: Vec<String> = found.rows.iter().map(|problem| problem.group.clone()).collect();
    // Programs get one answer: the problems, or the task that does something about them.
    if matches!(context.console.format, Format::People) || wishes.is_empty() {
        show(context, found)?;
    }
    if wishes.is_empty() {
        return if count == 0 { Ok(()) } else { Err(Error::ProblemsFound { count }) };
    }
    let told =
        format!("Do something about {} of {count} problem(s) of deployment `{deployment}`", wishes.len());
    context.console.confirm(&told)?;
    let limit = |group: String| (group, args.max_in_flight.clone());
    let max_in_flight: HashMap<String, String> =
        groups.into_iter().filter(|_| !args.max_in_flight.is_empty()).map(limit).collect();
    let request = ResolveRequest { request_id: request_id(), deployment, choices: wishes, max_in_flight };
    let started = call!(context.fleet, CloudCheckClient.resolve(request)).await?;
    context.attend(started, args.wait).await
}

async fn problems(context: &mut Context<'_>, deployment: &str) -> Result<Found<Problem>, Error> {
    pages(ALL, async |page| {
        let request = ListProblemsRequest { deployment: deployment.to_owned(), page: Some(page) };
        let answer = call!(context.fleet, CloudCheckClient.list_problems(request)).await?;
        Ok((answer.problems, answer.next_page_token, answer.as_of_revision))
    })
    .await
}

fn choices(problems: &[Problem], wish: &Wish<'_>) -> Vec<ProblemChoice> {
    let choice = |problem: &Problem| {
        let resolution = wish.of(problem)?;
        Some(ProblemChoice { problem_id: problem.id, resolution })
    };
    problems.iter().filter_map(choice).collect()
}

fn show(context: &mut Context<'_>, found: Found<Problem>) -> Result<(), Error> {
    let listing = Listing::of("problems", PROBLEMS, found.rows, |problem| {
        [
            Cell::Number(problem.id),
            problem.r#type.into(),
            problem.description.into(),
            problem.group.into(),
            problem.instance_id.into(),
            Cell::Lines(problem.resolutions.into_iter().map(|resolution| resolution.name).collect()),
            problem.automatic.into(),
        ]
    });
    context.console.list(&listing.as_of(found.revision))
}

pub(super) async fn resurrect(context: &mut Context<'_>, args: Resurrect) -> Result<(), Error> {
    let deployment = context.deployment()?;
    let instances = args.instances.into_iter().map(selector).collect();
    let request = ScanAndFixRequest { request_id: request_id(), deployment, instances };
    let started = call!(context.fleet, CloudCheckClient.scan_and_fix(request)).await?;
    context.attend(started, args.wait).await
}

#[cfg(test)]
mod tests {
    use proto::v1::Resolution;

    use super::*;

    #[test]
    fn the_first_resolution_that_goes_with_a_problem_is_taken() {
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
        let problem = |id, offered: &[&str]| Problem {
            id,
            automatic: "ignore".into(),
            resolutions: names(offered)
                .into_iter()
                .map(|name| Resolution { name, plan: String::new() })
                .collect(),
            ..Problem::default()
        };
        let found = [problem(1, &["ignore", "recreate_vm"]), problem(2, &["ignore", "delete_disk"])];
        let of = |wish: Wish<'_>| -> Vec<(u64, String)> {
            choices(&found, &wish).into_iter().map(|choice| (choice.problem_id, choice.resolution)).collect()
        };
        assert_eq!(of(Wish::Show), []);
        assert_eq!(of(Wish::Automatic), [(1, "ignore".into()), (2, "ignore".into())]);
        let wanted = names(&["dance", "recreate_vm", "ignore"]);
        assert_eq!(of(Wish::OneOf(&wanted)), [(1, "recreate_vm".into()), (2, "ignore".into())]);
        assert_eq!(of(Wish::OneOf(&wanted[..2])), [(1, "recreate_vm".into())]);
    }
}
