//! An example for every command, shown at the end of its help and on its page of the manual.

use clap::{Command, CommandFactory as _};

use super::Arguments;

/// A command line, and what it is for.
pub type Example = (&'static str, &'static str);

/// Command, without `homing` → its examples.
const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "",
        &[
            ("homing check /etc/homing/site.yaml", "Is the profile right?"),
            ("homing plan /etc/homing/site.yaml", "What would it change on this machine?"),
            ("homing status", "How is everything?"),
        ],
    ),
    (
        "check",
        &[
            ("homing check /etc/homing/site.yaml", "All that is wrong with a profile, at once"),
            ("homing check --json site.yaml", "The same for a program"),
        ],
    ),
    (
        "plan",
        &[
            ("homing plan /etc/homing/site.yaml", "What would change, as commands"),
            ("homing plan --full site.yaml", "Everything that will be there"),
        ],
    ),
    (
        "run",
        &[
            ("homing run /etc/homing/site.yaml", "As homing.service does"),
            (
                "homing run site.yaml --runtime-dir /tmp/run --state-dir /tmp/state",
                "With a socket and ids of its own",
            ),
        ],
    ),
    ("down", &[("homing down", "After `systemctl stop homing`: take it all away")]),
    ("reload", &[("homing reload", "After a change of the profile; says why it is refused")]),
    (
        "events",
        &[
            ("homing events", "What has happened"),
            ("homing events --follow", "And what happens from now on"),
            ("homing events --kind failover --json", "One kind, for a program"),
        ],
    ),
    (
        "uplink",
        &[
            ("homing uplink fiber drain", "Before maintenance: nothing new goes there"),
            ("homing uplink fiber disable", "No traffic there at all"),
            ("homing uplink fiber enable", "As before"),
        ],
    ),
    (
        "server",
        &[
            ("homing server web/a drain", "Before maintenance: nobody new comes"),
            ("homing server web/a enable", "As before"),
        ],
    ),
    (
        "status",
        &[
            ("homing status", "Uplinks, policies, services, and what is wrong"),
            ("homing status --watch", "The same, live; `?` shows the keys, `q` ends it"),
            ("homing status --json", "For a program"),
        ],
    ),
    ("uplinks", &[("homing uplinks", "Which links are up, and why")]),
    ("policies", &[("homing policies", "Which link takes which share of new sessions")]),
    ("services", &[("homing services", "Which servers answer, and what they carry")]),
    (
        "sessions",
        &[
            ("homing sessions --uplink lte", "What uses the expensive link?"),
            ("homing sessions --server web/a", "Who is still on the server that is drained?"),
        ],
    ),
    (
        "bindings",
        &[
            ("homing bindings --client 10.1.0.20", "Where does this client go?"),
            ("homing bindings --service shop", "Who is bound to which server?"),
        ],
    ),
    (
        "doctor",
        &[
            ("homing doctor /etc/homing/site.yaml", "What on this host is in the way?"),
            ("homing doctor --json", "The same for a program, without a profile"),
        ],
    ),
    (
        "explain",
        &[
            (
                "homing explain --from 10.1.0.13 --to 203.0.113.10 --port 443",
                "Which uplink does this connection take, and why?",
            ),
            (
                "homing explain --from 192.0.2.7 --to 198.51.100.2 --port 80 --in fiber",
                "Which server does a client from the internet get?",
            ),
        ],
    ),
    (
        "lab",
        &[
            ("homing lab", "A whole site to look at; Ctrl-C ends it"),
            ("homing lab --for 60 --no-table", "For a minute, in silence"),
        ],
    ),
    (
        "lab fail",
        &[
            ("homing lab fail fiber", "Pull the cable"),
            ("homing lab fail cable --how loss=30%", "A bad line"),
            ("homing lab fail server-a --how refuse", "A server whose program died"),
        ],
    ),
    ("lab heal", &[("homing lab heal fiber", "Mend it again")]),
    (
        "lab exec",
        &[
            ("homing lab exec lan -- ping -c 3 203.0.113.10", "As a host of the office"),
            ("homing lab exec router -- nft list table inet homing", "What homing has made"),
        ],
    ),
    ("lab status", &[("homing lab status", "How homing in the lab is, and what is broken")]),
    ("schema", &[("homing schema", "Save it, and name it in your editor's settings for YAML")]),
];

/// The examples of a command, which is named by the words after `homing`.
pub fn examples(command: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(name, _)| *name == command).map_or(&[], |(_, examples)| examples)
}

/// The whole command line, with its examples.
pub fn command() -> Command {
    illustrate(Arguments::command(), "")
}

fn illustrate(command: Command, name: &str) -> Command {
    let shown: String =
        examples(name).iter().map(|(line, what)| format!("  # {what}\n  {line}\n")).collect();
    let command = if shown.is_empty() {
        command
    } else {
        command.after_help(format!("Examples:\n{}", shown.trim_end()))
    };
    command.mut_subcommands(|below| {
        let name = format!("{name} {}", below.get_name());
        illustrate(below, name.trim_start())
    })
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::{EXAMPLES, command, examples};

    fn each_command(command: &Command, name: &str, look: &mut impl FnMut(&Command, &str)) {
        look(command, name);
        for below in command.get_subcommands() {
            let name = format!("{name} {}", below.get_name());
            each_command(below, name.trim_start(), look);
        }
    }

    #[test]
    fn every_command_shows_an_example_in_its_help() {
        let mut count = 0;
        each_command(&command(), "", &mut |command, name| {
            let help = command.clone().render_help().to_string();
            let examples = examples(name);
            assert!(!examples.is_empty(), "`homing {name}` has no example in src/cli/examples.rs");
            for (line, what) in examples {
                assert!(help.contains(line) && help.contains(what), "{help}");
            }
            count += 1;
        });
        assert_eq!(count, EXAMPLES.len(), "an example of a command that is not there");
    }

    #[test]
    fn every_example_is_a_command_line_that_is_taken() {
        for (name, examples) in EXAMPLES {
            for (line, _) in *examples {
                assert!(line.starts_with(format!("homing {name}").trim_end()), "{line}");
                let refused = command().try_get_matches_from(line.split(' ')).err();
                assert!(refused.is_none(), "{line}: {refused:?}");
            }
        }
    }

    #[test]
    fn help_fits_a_terminal_of_80_columns() {
        each_command(&command(), "", &mut |command, name| {
            for line in command.clone().term_width(80).render_help().to_string().lines() {
                assert!(line.chars().count() <= 80, "homing {name} --help: {line}");
            }
        });
    }
}
