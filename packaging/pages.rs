//! Writes what the package carries of the command line: a page of the manual for every command, and
//! completions for bash, zsh and fish. `homing-pages DIRECTORY`

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// Commands of the administrator: man-pages(7).
const SECTION: &str = "8";

fn main() -> anyhow::Result<()> {
    let directory = std::env::args_os().nth(1).context("usage: homing-pages DIRECTORY")?;
    write_pages(&PathBuf::from(directory))
}

fn write_pages(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let mut command = homing::cli::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "homing", directory)
            .with_context(|| format!("write the completions of {shell}"))?;
    }
    let mut command = without_help(homing::cli::command());
    command.build();
    manual(&command, "homing", "", directory)
}

/// `help` is no command with a page of its own.
fn without_help(command: Command) -> Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help)
}

/// The page of a command, and those of the commands below it.
fn manual(command: &Command, title: &str, name: &str, directory: &Path) -> anyhow::Result<()> {
    let path = directory.join(format!("{title}.{SECTION}"));
    fs::write(&path, page(command, title, name)?)
        .with_context(|| format!("write {}", path.display()))?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        let name = format!("{name} {}", below.get_name());
        let title = format!("{title}-{}", below.get_name());
        manual(below, &title, name.trim_start(), directory)?;
    }
    Ok(())
}

fn page(command: &Command, title: &str, name: &str) -> anyhow::Result<Vec<u8>> {
    let version = format!("homing {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone())
        .title(title.to_uppercase())
        .section(SECTION)
        // Nothing that changes from one build to the next.
        .date("")
        .source(version)
        .manual("Multihoming");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut page)?;
    }
    if command.get_subcommands().next().is_some() {
        man.render_subcommands_section(&mut page)?;
    }
    examples(name).to_writer(&mut page)?;
    closing(name).to_writer(&mut page)?;
    page.flush()?;
    Ok(page)
}

fn examples(name: &str) -> Roff {
    let mut roff = Roff::default();
    roff.control("SH", ["EXAMPLES"]);
    for (line, what) in homing::cli::examples(name) {
        roff.control("TP", []).text([bold(*line)]).text([roman(*what)]);
    }
    roff
}

/// What is the same of every command.
fn closing(name: &str) -> Roff {
    let mut roff = Roff::default();
    roff.control("SH", ["EXIT STATUS"]);
    let codes = [
        ("0", "Done."),
        ("1", "Refused or failed; the reason is on standard error."),
        ("2", "Wrong usage."),
        ("3", "No running process."),
    ];
    for (code, meaning) in codes {
        roff.control("TP", ["4"]).text([bold(code)]).text([roman(meaning)]);
    }
    if name.is_empty() {
        roff.control("SH", ["FILES"]);
        let files = [
            ("/etc/homing/site.yaml", "The profile that homing.service runs."),
            ("/run/homing/api.sock", "The running process: HTTP on a Unix socket."),
            ("/var/lib/homing", "Numbers of uplinks, and kernel settings as they were."),
            ("/usr/share/doc/homing", "Documentation and example profiles."),
        ];
        for (file, meaning) in files {
            roff.control("TP", []).text([bold(file)]).text([roman(meaning)]);
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    let others: &[&str] = if name.is_empty() { &["nft", "ip", "conntrack"] } else { &["homing"] };
    for (number, other) in others.iter().enumerate() {
        let comma = if number + 1 < others.len() { "," } else { "" };
        roff.text([bold(*other), roman(format!("({SECTION}){comma}"))]);
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::{page, write_pages};

    #[test]
    fn every_command_has_a_page_with_its_examples() -> anyhow::Result<()> {
        let directory = std::env::temp_dir().join(format!("homing-pages-{}", std::process::id()));
        write_pages(&directory)?;
        let pages = ["homing.8", "homing-check.8", "homing-explain.8", "homing-lab-fail.8"];
        for name in pages {
            let text = std::fs::read_to_string(directory.join(name))?;
            assert!(text.contains(".SH EXAMPLES\n.TP\n\\fBhoming "), "{name}: {text}");
        }
        for name in ["homing-help.8", "homing-lab-help.8", "homing-help-check.8"] {
            assert!(!directory.join(name).exists(), "{name}");
        }
        for name in ["homing.bash", "_homing", "homing.fish"] {
            assert!(std::fs::read_to_string(directory.join(name))?.contains("doctor"), "{name}");
        }
        std::fs::remove_dir_all(directory)?;
        Ok(())
    }

    #[test]
    fn a_page_names_its_command_in_full() -> anyhow::Result<()> {
        let mut all = homing::cli::command();
        all.build();
        let fail = all.find_subcommand("lab").and_then(|lab| lab.find_subcommand("fail"));
        let fail = fail.cloned().unwrap_or_default();
        let text = String::from_utf8(page(&fail, "homing-lab-fail", "lab fail")?)?;
        assert!(text.contains("\\fBhoming lab fail\\fR"), "{text}");
        assert!(text.contains("homing\\-lab\\-fail \\- Break"), "{text}");
        Ok(())
    }
}
