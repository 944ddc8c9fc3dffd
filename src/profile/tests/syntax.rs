//! What YAML itself forbids, and what YAML allows but a profile does not.

use super::{Case, check};

#[test]
fn findings_say_where_and_what_and_how_to_cure_it() {
    check(CASES);
}

const CASES: &[Case] = &[
    Case {
        name: "an unclosed bracket",
        text: concat!("version: 1\n", "uplinks: { fiber: { interface: wan0 }\n",),
        findings: &["2:10: error: : not YAML: unclosed bracket '{' (close the bracket)"],
    },
    Case {
        name: "a colon inside plain text",
        text: concat!("version: 1\n", "site: a: b\n",),
        findings: &[
            "2:8: error: : not YAML: mapping values are not allowed in this context (put text that holds `: ` in quotes, and look at the indentation of this line)",
        ],
    },
    Case {
        name: "an unclosed quote",
        text: concat!("version: 1\n", "site: \"a\n",),
        findings: &["2:7: error: : not YAML: unclosed quote (close the quote)"],
    },
    Case {
        name: "uneven indentation",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "    fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
        ),
        findings: &[
            "4:3: error: : not YAML: while parsing a block mapping, did not find expected key (each line here is `key: value`: look for a missing `: ` and at the indentation)",
        ],
    },
    Case {
        name: "a tab in the indentation",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber:\n",
            "\t  interface: wan0\n",
            "  cable: { interface: wan1 }\n",
        ),
        findings: &[
            "4:1: error: : a tab in the indentation (indent with spaces, two for each level)",
        ],
    },
    Case {
        name: "a tab after spaces",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber:\n",
            "    interface: wan0\n",
            "  \tweight: 1\n",
        ),
        findings: &[
            "5:3: error: : a tab in the indentation (indent with spaces, two for each level)",
        ],
    },
    Case {
        name: "tabs inside brackets are indentation too",
        text: concat!(
            "version: 1\n",
            "uplinks: {\n",
            "\tfiber: { interface: wan0 },\n",
            "\tcable: { interface: wan1 } }\n",
        ),
        findings: &[
            "3:1: error: : a tab in the indentation (indent with spaces, two for each level)",
            "4:1: error: : a tab in the indentation (indent with spaces, two for each level)",
        ],
    },
    Case {
        name: "a second document",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "---\n",
            "version: 1\n",
        ),
        findings: &["5:1: error: : a second document (remove the `---`: a file holds one profile)"],
    },
    Case {
        name: "an alias to nothing",
        text: concat!("version: 1\n", "site: *name\n",),
        findings: &[
            "2:7: error: : an alias (`*…`) to an anchor (`&…`) that does not exist (put text that begins with `*` in quotes)",
        ],
    },
    Case {
        name: "an alias inside itself",
        text: concat!("version: 1\n", "uplinks: &u { fiber: *u }\n",),
        findings: &["2:22: error: : an alias inside what it stands for (write the value out)"],
    },
    Case {
        name: "a tag",
        text: concat!(
            "version: !!int 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
        ),
        findings: &[
            "1:16: error: : a YAML tag (`!…`) (remove the word that begins with `!`, or put it in quotes)",
        ],
    },
    Case {
        name: "a merge key",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: &f { interface: wan0 }\n",
            "  cable: { <<: *f, interface: wan1 }\n",
        ),
        findings: &[
            "4:12: error: uplinks.cable.<<: unknown key `<<` (merge keys are not part of YAML 1.2: write the keys out)",
        ],
    },
    Case {
        name: "an unknown key",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, gatway: auto }\n",
        ),
        findings: &[
            "4:29: error: uplinks.fiber.gatway: unknown key `gatway` (did you mean `gateway`?)",
        ],
    },
    Case {
        name: "an unknown key like no other",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, zzz: 1 }\n",
        ),
        findings: &[
            "4:29: error: uplinks.fiber.zzz: unknown key `zzz` (the keys here are `interface`, `gateway`, `gateway6`, `bandwidth`, `weight`, `probe`, `nat`, `prefixes`, `metered` and `id`)",
        ],
    },
    Case {
        name: "a duplicate key",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, weight: 1, weight: 2 }\n",
        ),
        findings: &[
            "4:40: error: uplinks.fiber.weight: duplicate key `weight` (the first is in line 4: keep one of them)",
        ],
    },
    Case {
        name: "a duplicate name",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan2 }\n",
        ),
        findings: &[
            "5:3: error: uplinks.fiber: duplicate key `fiber` (the first is in line 3: keep one of them)",
        ],
    },
    Case {
        name: "a list as key",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "? [a]\n",
            ": 1\n",
        ),
        findings: &["5:3: error: ?: a list cannot be a key (keys are plain words)"],
    },
    Case {
        name: "an empty file",
        text: "",
        findings: &[
            "1:1: error: : the profile is empty (a profile begins with `version: 1` and names at least two uplinks)",
        ],
    },
    Case {
        name: "nothing but a comment",
        text: "# nothing\n",
        findings: &[
            "1:1: error: : the profile is empty (a profile begins with `version: 1` and names at least two uplinks)",
        ],
    },
    Case {
        name: "a file that is a list",
        text: "- version: 1\n",
        findings: &[
            "1:1: error: : expected a block of keys, not a list (its keys are `version`, `site`, `uplinks`, `lans`, `probes`, `policies`, `groups`, `services`, `firewall`, `marks`, `routing`, `fast-path`, `helpers`, `api` and `notify`)",
        ],
    },
    Case {
        name: "control characters",
        text: concat!("version: 1\n", "site: a\u{1}\n",),
        findings: &["2:7: error: : not YAML: unexpected character: `\\u{1}' ()"],
    },
];
