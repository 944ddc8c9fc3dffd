//! What the documents show is done: their profiles run, their commands answer.

use std::collections::BTreeSet;
use std::fs;

use homing::lab::{Builder, Handover, Protocol};
use homing::model::{Gateway, Uplink};
use homing::profile;
use nix::sys::signal::Signal;

use crate::harness::{PATIENCE, Site, Snapshot, V4, homing, until};

#[path = "../src/cli/tests_documents/pages.rs"]
mod pages;

/// A site with the links that this profile is about, by their names and devices.
fn site_for(uplinks: &[Uplink]) -> Site {
    let names = uplinks.iter().map(|uplink| uplink.name.as_str()).collect::<Vec<_>>();
    Site::prepare(V4, |_| {
        uplinks.iter().fold(Builder::new(&names), |builder, uplink| {
            builder.isp(uplink.name.as_str(), |isp| {
                isp.interface = uplink.interface.to_string();
                if uplink.gateway == Gateway::None {
                    isp.handover = Handover::PointToPoint;
                }
                // The line with a fixed address that the documents speak of.
                if uplink.name.as_str() == "cable" {
                    isp.customer4 = "198.51.100.2/29".parse().unwrap();
                    isp.gateway4 = "198.51.100.1".parse().unwrap();
                }
            })
        })
    })
}

/// Runs it, looks that it is what the kernel has and that hosts get out, and takes it away.
fn try_profile(name: &str, text: &str) {
    let loaded = profile::load(text);
    let model = loaded.site.unwrap_or_else(|| panic!("{name}: {:?}", loaded.findings));
    let mut site = site_for(&model.uplinks);
    // What is inside besides LAN and DMZ.
    for lan in model.lans.iter().map(|lan| lan.interface.to_string()) {
        if !["lan0", "dmz0"].contains(&&*lan) {
            let lines = [
                format!("link add {lan} type bridge"),
                format!("link set {lan} up"),
                format!("addr add 10.99.0.1/24 dev {lan}"),
            ];
            site.router().ip(&lines).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    let before = Snapshot::of(&site.router());
    site.write_profile(text);
    let checked = site.homing(&["check", &site.path("site.yaml")]);
    assert_eq!(checked.code, Some(0), "{name}: {checked:?}");
    site.spawn();
    site.wait_ready();
    let status = site.status();
    for uplink in &model.uplinks {
        assert!(status["uplinks"][uplink.name.as_str()].is_object(), "{name}: {status}");
    }
    site.wait_settled();
    // Hosts get out, where the links are as the profile says.
    let elsewhere = |uplink: &Uplink| matches!(uplink.gateway, Gateway::Address(_));
    let inside =
        model.lans.is_empty() || model.lans.iter().any(|lan| lan.interface.as_str() == "lan0");
    if inside && !model.uplinks.iter().any(elsewhere) {
        let out = || site.try_open(Protocol::Tcp, 1, site.server(1, 80)).is_ok();
        until(PATIENCE, out, |out| *out).unwrap_or_else(|_| panic!("{name}: nobody gets out"));
    }
    site.stop(Signal::SIGTERM);
    let down = site.homing(&["down"]);
    assert_eq!(down.code, Some(0), "{name}: {down:?}");
    let differences = before.differences(&Snapshot::of(&site.router()));
    assert_eq!(differences, "", "{name}: after down");
}

#[test]
fn every_profile_in_the_documents_runs() {
    let mut count = 0;
    for (file, text) in pages::documents() {
        for (index, profile) in pages::profiles(&text).iter().enumerate() {
            try_profile(&format!("{}, {index}", file.display()), profile);
            count += 1;
        }
    }
    assert!(count >= 10, "{count} profiles");
}

#[test]
fn every_shipped_profile_runs() {
    let mut count = 0;
    for file in fs::read_dir(pages::root().join("profiles")).unwrap() {
        let file = file.unwrap().path();
        try_profile(&file.display().to_string(), &fs::read_to_string(&file).unwrap());
        count += 1;
    }
    assert!(count >= 7, "{count} profiles");
}

/// A site with what the commands in the documents speak of: the recipe with servers behind two ISPs.
fn site_of_the_recipes() -> Site {
    let recipes = fs::read_to_string(pages::root().join("docs/recipes.md")).unwrap();
    let profile = pages::profiles(&recipes).into_iter().find(|text| text.contains("shop:"));
    let profile = profile.expect("the recipe of a shop");
    let model = profile::load(&profile).site.expect("a profile");
    let mut site = site_for(&model.uplinks);
    site.write_profile(&profile);
    site.spawn();
    site.wait_ready();
    site
}

#[test]
fn every_command_in_the_documents_answers() {
    let mut site = site_of_the_recipes();
    let (mut done, mut last) = (BTreeSet::new(), Vec::new());
    for (file, text) in pages::documents() {
        for line in pages::commands(&text) {
            let Some(words) = pages::words(&line) else { continue };
            let path = site.path("site.yaml");
            let args = words[1..].iter().map(|word| match *word {
                "/etc/homing/site.yaml" => path.clone(),
                word => word.to_owned(),
            });
            let args = args.collect::<Vec<_>>();
            let args = args.iter().map(String::as_str).collect::<Vec<_>>();
            // The lab is `demo`'s, the live view `terminal`'s; and it runs.
            if ["lab", "run"].contains(&args[0]) || args.contains(&"--watch") {
                continue;
            }
            if args[0] == "down" {
                last.push(line);
                continue;
            }
            if !done.insert(line.clone()) {
                continue;
            }
            let where_from = format!("{}: {line}", file.display());
            if args.contains(&"--follow") {
                let (run, program) = (site.path("run"), &["1", homing()]);
                let follow = [program, &args[..], &["--runtime-dir", &run]].concat();
                let outcome = site.command("/usr/bin/timeout", &follow);
                assert_eq!(outcome.code, Some(124), "{where_from}: {outcome:?}");
                continue;
            }
            let outcome = site.homing(&args);
            // What the doctor finds is no failure of the command.
            let found = args[0] == "doctor" && outcome.code == Some(1);
            assert!(outcome.code == Some(0) || found, "{where_from}: {outcome:?}");
            let order = ["uplink", "server", "reload"].contains(&args[0]);
            assert!(order || !outcome.stdout.is_empty(), "{where_from}: {outcome:?}");
        }
    }
    assert!(done.len() >= 15, "{done:?}");
    assert!(!last.is_empty());
    site.stop(Signal::SIGTERM);
    let down = site.homing(&["down"]);
    assert_eq!(down.code, Some(0), "{down:?}");
}

#[test]
fn every_question_to_the_api_in_the_documents_is_answered() {
    let site = site_of_the_recipes();
    let socket = site.path("run/api.sock");
    let mut count = 0;
    for (file, text) in pages::documents() {
        for line in pages::commands(&text) {
            if !line.starts_with("curl ") || !line.contains("/run/homing/api.sock") {
                continue;
            }
            let line = line.replace("/run/homing/api.sock", &socket).replace("curl ", "curl -f ");
            let stream = line.contains("/stream");
            let outcome = site.command("/usr/bin/timeout", &["2", "sh", "-c", &line]);
            let wanted = if stream { Some(124) } else { Some(0) };
            assert_eq!(outcome.code, wanted, "{}: {line}: {outcome:?}", file.display());
            assert!(stream || !outcome.stdout.is_empty(), "{line}: {outcome:?}");
            count += 1;
        }
    }
    assert!(count >= 2, "{count} questions");
}
