//! A director in memory that deploys manifests, and the manifests to change for a story.

use std::net::IpAddr;

use model::instance::Instance;
use model::plan::Plan;
use model::task::{DeployOptions, ReleaseExport, TaskError};
use model::{DeploymentName, GroupName};
use scheduler::Draft;
use serde_json::{Value, json};

use crate::perform::{Faults, perform};
use crate::render;
use crate::world::{View, World};

/// Zones z1, z2 and z3; network `a` has a subnet in each (`10.N.0.0/24`, static from .100 on) and one over all three
/// (`10.9.0.0/24`, all static from .100 on).
pub fn cloud_config() -> Value {
    let subnet = |n: u8, azs: Value| {
        json!({
            "range": format!("10.{n}.0.0/24"), "gateway": format!("10.{n}.0.1"), "azs": azs,
            "static": [format!("10.{n}.0.100-10.{n}.0.199")],
        })
    };
    let all = json!(["z1", "z2", "z3"]);
    json!({
        "azs": [{"name": "z1"}, {"name": "z2"}, {"name": "z3"}],
        "vm_types": [{"name": "small", "cloud_properties": {"ram": 1}}],
        "disk_types": [{"name": "disk", "disk_size": 1000}],
        "networks": [{"name": "a", "subnets": [
            subnet(1, json!(["z1"])), subnet(2, json!(["z2"])), subnet(3, json!(["z3"])), subnet(9, all),
        ]}],
        "compilation": {"workers": 2, "network": "a", "az": "z1", "vm_type": "small", "reuse_compilation_vms": true},
    })
}

/// A group `g` with the job `server`.
pub fn group(instances: usize) -> Value {
    json!({
        "name": "g", "instances": instances, "azs": ["z1", "z2", "z3"], "vm_type": "small", "stemcell": "default",
        "networks": [{"name": "a"}],
        "jobs": [{"name": "server", "release": "golden", "properties": {"port": 1}}],
    })
}

/// A manifest with these groups.
pub fn manifest(groups: &[Value]) -> Value {
    json!({
        "name": "p", "releases": [{"name": "golden", "version": "1"}],
        "stemcells": [{"alias": "default", "os": "toronto-os", "version": "1"}],
        "update": {"canaries": 1, "max_in_flight": 1, "canary_watch_time": 1, "update_watch_time": 1},
        "instance_groups": groups,
    })
}

/// The director.
pub struct Director {
    pub world: World,
}

impl Director {
    /// Starts one with this cloud config.
    pub fn new(cloud_config: &Value) -> Self {
        let mut world = World::new();
        world.put_config("cloud", "default", cloud_config.to_string());
        Self { world }
    }

    pub fn view(&mut self) -> View {
        self.world.view(&DeploymentName::from("p"), &[])
    }

    /// Plans a deploy.
    pub fn plan(&mut self, manifest: &Value) -> Result<Plan, TaskError> {
        let view = self.view();
        self.plan_with(&view, manifest, &DeployOptions::default())
    }

    /// Plans a deploy from a view of the world that the story may have changed.
    pub fn plan_with(
        &self,
        view: &View,
        manifest: &Value,
        options: &DeployOptions,
    ) -> Result<Plan, TaskError> {
        self.plan_both(view, manifest, options).map(|(_, plan)| plan)
    }

    /// Plans a deploy and returns what both halves of planning gave.
    pub fn plan_both(
        &self,
        view: &View,
        manifest: &Value,
        options: &DeployOptions,
    ) -> Result<(Draft, Plan), TaskError> {
        let (text, world) = (manifest.to_string(), &self.world);
        let input = view.input(world, &text, options);
        let draft = scheduler::draft(&input)?;
        let rendered = draft.to_render().map(|spec| (spec.id.clone(), render::render(spec, world))).collect();
        let plan = scheduler::plan(&input, &draft, &rendered)?;
        Ok((draft, plan))
    }

    /// Plans an export of what was deployed last.
    pub fn export(&mut self, export: &ReleaseExport) -> Result<Option<Plan>, TaskError> {
        let view = self.view();
        let text = scheduler::stored_manifest(&view.facts())?;
        scheduler::plan_export(&view.input(&self.world, &text, &DeployOptions::default()), export)
    }

    /// Deploys, and expects it to go well.
    #[track_caller]
    pub fn deploy(&mut self, manifest: &Value) -> Plan {
        let plan = self.plan(manifest).unwrap();
        let performed = perform(&mut self.world, &plan, &Faults::default());
        assert_eq!(performed.error, None);
        plan
    }

    /// Returns the code of the refusal of a manifest.
    #[track_caller]
    pub fn refusal(&mut self, manifest: &Value) -> u32 {
        let (code, _) = self.complaint(manifest);
        code
    }

    /// Returns code and text of the refusal of a manifest.
    #[track_caller]
    pub fn complaint(&mut self, manifest: &Value) -> (u32, String) {
        match self.plan(manifest) {
            Ok(plan) => panic!("not refused:\n{}", scheduler::explain(&plan)),
            Err(error) => (error.code, error.message),
        }
    }

    /// Returns the instances of group `g` by index.
    pub fn instances(&self) -> Vec<&Instance> {
        let mut found: Vec<&Instance> =
            self.world.instances.iter().filter(|i| i.spec.group == GroupName::from("g")).collect();
        found.sort_by_key(|i| i.spec.index);
        found
    }

    /// Returns what each instance of group `g` has: index, zone and addresses.
    pub fn seats(&self) -> Vec<String> {
        let seat = |i: &&Instance| {
            let ips: Vec<String> =
                i.spec.networks.iter().filter_map(|n| n.ip).map(|ip| ip.to_string()).collect();
            let az = i.spec.az.as_ref().map_or("-", |az| az.as_str());
            format!("{} {az} {}", i.spec.index, ips.join(" "))
        };
        self.instances().iter().map(seat).collect()
    }

    /// Has the instance of group `g` with this index ignored.
    pub fn ignore(&mut self, index: u32) {
        for instance in &mut self.world.instances {
            if instance.spec.group.as_str() == "g" && instance.spec.index == index {
                instance.ignore = true;
            }
        }
    }
}

/// Returns the names of the steps of every unit of a stage, a line each.
pub fn steps(plan: &Plan, title: Option<&str>) -> Vec<String> {
    plan.phases
        .iter()
        .flat_map(|p| &p.stages)
        .filter(|s| s.title.as_deref() == title)
        .flat_map(|s| &s.waves)
        .flat_map(|w| &w.units)
        .map(|u| u.steps.iter().map(|s| s.action.name()).collect::<Vec<_>>().join(" "))
        .collect()
}

/// Returns whether a plan touches nothing.
pub fn is_empty(plan: &Plan) -> bool {
    plan.units().flat_map(|u| &u.steps).all(|s| s.action.name() == "save_deployment")
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
