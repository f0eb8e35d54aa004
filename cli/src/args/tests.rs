use clap::{CommandFactory as _, Parser as _};

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("dctl").chain(line.split_whitespace()))
}

#[track_caller]
fn refused(line: &str, why: &str) {
    let error = parse(line).expect_err(line).to_string();
    assert!(error.contains(why), "{line}: {error}");
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn the_commands_are_these() {
    let command = Cli::command();
    let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    // A word that scripts use is not taken away: additions only.
    expect_test::expect![[r#"
        info cluster user create-release upload-release releases inspect-release delete-release export-release build-stemcell
        upload-stemcell stemcells delete-stemcell blob update-config update-cloud-config update-runtime-config update-cpi-config configs config
        delete-config deploy plan diff interpolate deployments deployment manifest delete-deployment instances
        start stop restart recreate ignore unignore errands run-errand logs ssh
        scp variables variable deployed-variable certificates link-providers link-consumers links create-link delete-link
        link-address orphaned-vms disks orphan-disk attach-disk delete-vm delete-disk dynamic-disks create-dynamic-disk attach-dynamic-disk
        provide-dynamic-disk detach-dynamic-disk delete-dynamic-disk networks delete-network managed-networks snapshots take-snapshot delete-snapshot delete-snapshots
        cloud-check resurrect clean-up tasks task cancel-task events locks health cpi
        leaks watch completions
    "#]]
    .assert_eq(&names.chunks(10).map(|line| line.join(" ") + "\n").collect::<String>());
}

#[test]
fn every_command_and_flag_explains_itself() {
    fn check(command: &clap::Command) {
        for part in command.get_subcommands() {
            assert!(part.get_about().is_some(), "{} has no help", part.get_name());
            check(part);
        }
        for argument in command.get_arguments() {
            assert!(
                argument.get_help().is_some(),
                "{} {} has no help",
                command.get_name(),
                argument.get_id()
            );
        }
    }
    check(&Cli::command());
}

#[test]
fn endpoints_are_repeated_or_listed_before_or_behind_the_command() {
    for line in ["-e a:1 -e b:2 tasks", "--endpoint a:1,b:2 tasks", "tasks -e a:1,b:2"] {
        assert_eq!(parse(line).unwrap().connection.endpoints, ["a:1", "b:2"], "{line}");
    }
}

#[test]
fn a_deploy_takes_boshs_flags() {
    let line = "-d web deploy m.yml -v port=80 -l a.yml -l b.yml -o ops.yml --recreate --fix --skip-drain=db \
                --skip-drain=web --canaries 2 --max-in-flight 25% --dry-run";
    let Command::Deploy(deploy) = parse(line).unwrap().command else { panic!() };
    assert_eq!(deploy.overlay.vars, ["port=80"]);
    assert_eq!(deploy.overlay.vars_files, ["a.yml", "b.yml"]);
    assert_eq!(deploy.overlay.ops_files, ["ops.yml"]);
    assert_eq!(deploy.flags.skip_drain, ["db", "web"]);
    assert_eq!((deploy.flags.canaries.as_str(), deploy.flags.max_in_flight.as_str()), ("2", "25%"));
    assert!(deploy.flags.recreate && deploy.flags.fix && deploy.dry_run && !deploy.wait.detach);
}

#[test]
fn skip_drain_without_a_group_is_for_all_and_eats_no_manifest() {
    let Command::Deploy(deploy) = parse("deploy --skip-drain m.yml").unwrap().command else { panic!() };
    assert_eq!((deploy.flags.skip_drain, deploy.manifest.as_str()), (vec!["*".to_owned()], "m.yml"));
}

#[test]
fn instances_are_named_by_group_and_id() {
    let slug = |text: &str| text.parse::<InstanceSlug>();
    assert_eq!(slug("web").unwrap(), InstanceSlug { group: "web".into(), id_or_index: String::new() });
    assert_eq!(slug("web/0").unwrap(), InstanceSlug { group: "web".into(), id_or_index: "0".into() });
    for wrong in ["", "/", "/0", "web/", "web/0/1"] {
        assert!(slug(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn releases_are_named_by_name_and_version() {
    let slug = |text: &str| text.parse::<Slug>();
    assert_eq!(slug("redis").unwrap().version, None);
    assert_eq!(slug("redis/1+dev.2").unwrap().version.as_deref(), Some("1+dev.2"));
    for wrong in ["", "/1", "redis/", "redis/1/2"] {
        assert!(slug(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn recent_tasks_have_a_number_if_it_is_given() {
    let recent = |line| match parse(line).unwrap().command {
        Command::Tasks(tasks) => tasks.recent,
        _ => panic!(),
    };
    assert_eq!((recent("tasks"), recent("tasks -r"), recent("tasks --recent=5")), (None, Some(30), Some(5)));
}

#[test]
fn contradictions_are_refused() {
    refused("task 3 --debug --event", "cannot be used with");
    refused("config", "required");
    refused("config 3 --type cloud", "cannot be used with");
    refused("disks", "--orphaned");
    refused("health resurrection maybe", "possible values");
    for scope in
        ["root", "bosh.write", "bosh.teams.red", "bosh.teams..admin", "bosh.teams.a.b.admin", "BOSH.ADMIN"]
    {
        refused(&format!("user add anna --scope {scope}"), "bosh.admin");
    }
    for scope in ["bosh.read", "bosh.6e4b.admin", "bosh.teams.red.read", "bosh.stemcells.upload"] {
        assert!(parse(&format!("user add anna --scope {scope}")).is_ok(), "{scope}");
    }
    refused("cancel-task many", "invalid digit");
}

#[test]
fn a_password_is_no_flag() {
    // It would be in the list of processes, and in the shell's history.
    refused("--password geheim tasks", "unexpected argument");
}

#[test]
fn a_new_user_s_password_is_not_that_of_who_makes_him() {
    let cli = parse("user add ann --new-password-file new.txt").unwrap();
    assert_eq!(cli.connection.password_file, None, "this is what the admin logs in with");
}
