//! The section "From zero" of docs/systemd.md, command for command, with clients all the time.

use crate::support::deploy::install_server_and_plugin;
use crate::support::systemd::Systemd;
use crate::support::{LIMIT, Load, LoadSpec, Target};

/// The commands of each step.
fn steps() -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/systemd.md");
    let text = std::fs::read_to_string(page).expect("a page of ours");
    let (_, section) = text.split_once("\n## From zero\n").expect("the page has it");
    let section = section.split("\n## ").next().expect("there is always a first part");
    let blocks = section.split("\n```sh\n").skip(1);
    blocks.map(|block| block.split("\n```").next().expect("a first part").to_owned()).collect()
}

#[test]
fn each_step_does_what_it_says_and_no_client_is_refused() {
    let Some(systemd) = Systemd::start() else { return };
    install_server_and_plugin(&systemd);
    // Its commands are for a machine of its own.
    let etc = systemd.run("findmnt", ["-no", "FSTYPE", "/etc"]).succeeds();
    assert_eq!(etc, "overlay");
    let tree = env!("CARGO_MANIFEST_DIR");
    let run = |step: &str| systemd.run("sh", ["-c", &format!("cd {tree} && set -e\n{step}")]).succeeds();
    let steps = steps();
    let [project, units, start, release, broken, restart, crash, end] = &steps[..] else {
        panic!("other steps: {steps:#?}")
    };
    run(project);
    assert!(run(units).contains("Overall exposure level for shop.service: 1."));
    assert_eq!(run(start), "release 1\nactive");

    let target = Target::Tcp(([127, 0, 0, 1], 80).into());
    let spec = LoadSpec { keep_alive: 0, fresh: 2, timeout: LIMIT, ..LoadSpec::gets() };
    let load = systemd.within(|| Load::start(&target, &spec));
    load.wait_for(20);
    assert_eq!(run(release), "release 2");
    let said = run(broken);
    assert!(said.contains("No module named 'no_such_module'") && said.ends_with("\nrelease 2"), "{said}");
    assert!(systemd.read("/srv/shop/current/shop/wsgi.py").expect("a release").contains("release 2"));
    assert_eq!(run(restart), "release 2");
    load.wait_for(20);
    load.stop().assert_nothing_lost();

    assert_eq!(run(crash), "release 2");
    run(end);
    assert_eq!(systemd.show("shop.socket", "ActiveState"), "inactive");
    assert_eq!(systemd.show("shop.service", "Result"), "success");
}
