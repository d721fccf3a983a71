//! The walls and habits of the code base, checked by reading it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod rooms;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Lines of a source file, tests aside.
const LONGEST_FILE: usize = 500;

/// Which of our own crates each one may name, beside itself.
const MAY_DEPEND_ON: [(&str, &[&str]); 10] = [
    ("proto", &[]),
    ("discovery", &["proto"]),
    ("documents", &[]),
    ("mesh", &["proto"]),
    ("raft", &["proto", "mesh"]),
    ("xds", &["proto", "discovery", "mesh", "raft"]),
    ("node", &["proto", "mesh", "raft"]),
    (".", &["proto", "discovery", "documents", "mesh", "raft", "xds", "node"]),
    ("tests", &["proto"]),
    ("powercut", &[]),
];

/// Dependencies that belong to one crate, or that a crate must do without.
const ONLY_IN_RAFT: [&str; 3] = ["openraft", "openraft-rt-sim", "rocksdb"];
/// Crates that are functions of their input.
const PURE: [&str; 2] = ["discovery", "documents"];
const NOT_IN_PURE: [&str; 6] = ["tokio", "tokio-util", "tonic", "futures", "rand", "uuid"];

#[test]
fn crates_depend_only_on_what_the_walls_allow() {
    for (folder, allowed) in MAY_DEPEND_ON {
        for name in dependencies(folder, "dependencies") {
            if let Some(own) = name.strip_prefix("quorate-") {
                assert!(allowed.contains(&own), "{folder} must not depend on {own}");
            }
            let foreign = folder != "raft" && ONLY_IN_RAFT.contains(&name.as_str());
            assert!(!foreign, "only raft depends on {name}, not {folder}");
            let impure = PURE.contains(&folder) && NOT_IN_PURE.contains(&name.as_str());
            assert!(!impure, "{folder} is pure, so not {name}");
        }
    }
}

#[test]
fn only_raft_names_openraft_and_rocksdb() {
    for file in files("rs") {
        if file.starts_with("raft/") {
            continue;
        }
        for (number, line) in code(&file) {
            let names = line.contains("openraft::") || line.contains("rocksdb::");
            assert!(!names, "{file}:{number}: only raft names openraft and rocksdb");
        }
    }
}

/// Whoever reads a crate from below never meets a name that is explained further up.
#[test]
fn modules_name_each_other_in_one_direction() {
    for (folder, _) in MAY_DEPEND_ON {
        let sources = if folder == "." { "src/".to_owned() } else { format!("{folder}/src/") };
        let files: BTreeMap<String, String> = files("rs")
            .into_iter()
            .filter(|file| !file.ends_with("/tests.rs") && !file.contains("/tests/"))
            .filter_map(|file| Some((file.strip_prefix(&sources)?.to_owned(), read(&file))))
            .collect();
        let circles = rooms::House::read(&files).circles();
        assert!(circles.is_empty(), "modules of {folder} in a circle:\n{}", circles.join("\n"));
    }
}

#[test]
fn pure_crates_read_no_clock_and_no_chance() {
    let forbidden =
        ["Instant::now", "SystemTime", "HashMap", "HashSet", "async fn", "std::net::Tcp"];
    let is_pure =
        |file: &String| PURE.iter().any(|folder| file.starts_with(&format!("{folder}/src/")));
    for file in files("rs").into_iter().filter(is_pure) {
        for (number, line) in code(&file) {
            for word in forbidden {
                assert!(!line.contains(word), "{file}:{number}: the crate is pure, so no {word}");
            }
        }
    }
}

/// So that encryption and identity of connections have one place on either side.
#[test]
fn connections_begin_in_one_place() {
    let places = [
        ("TcpListener::bind", "src/listener.rs"),
        ("Endpoint::from_", "mesh/src/dial.rs"),
        ("Server::builder", "src/listener.rs"),
    ];
    // It dials the services that it checks, which are not servers of the mesh.
    let exempt = "src/cli/register/health_check.rs";
    let sources = files("rs").into_iter().filter(|file| {
        let is_test = file.contains("tests/") || file.ends_with("tests.rs");
        file.contains("src/") && !is_test && file != exempt
    });
    for file in sources {
        for (number, line) in code(&file) {
            for (call, place) in places {
                let allowed = file == place || !line.contains(call);
                assert!(allowed, "{file}:{number}: {call} belongs into {place}");
            }
        }
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for (folder, _) in MAY_DEPEND_ON {
        // What is generated there does not follow our lints.
        if folder == "proto" {
            continue;
        }
        let own = manifest(folder).get("lints").and_then(|lints| lints.get("workspace").cloned());
        assert_eq!(own, Some(toml::Value::Boolean(true)), "{folder}/Cargo.toml");
    }
}

#[test]
fn files_are_short() {
    for file in files("rs") {
        let is_test = file.contains("/tests/") || file.ends_with("/tests.rs");
        let length = read(&file).lines().count();
        assert!(is_test || length <= LONGEST_FILE, "{file} has {length} lines: split it");
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    for file in files("rs") {
        let is_unit_test = file.ends_with("/tests.rs") || file.contains("/tests/");
        let documented = read(&file).starts_with("//!") || read(&file).starts_with("#![");
        assert!(is_unit_test || documented, "{file} begins without a //! comment");
    }
}

#[test]
fn nothing_is_left_undone() {
    for file in files("rs") {
        for (number, line) in read(&file).lines().enumerate() {
            let at = format!("{file}:{}", number + 1);
            for word in ["#[ignore", "todo!(", "unimplemented!(", "should_panic"] {
                assert!(!line.contains(word), "{at}: {word}");
            }
            if let Some((_, rest)) = line.split_once("TODO") {
                let words = rest.split_whitespace().count();
                assert!(words >= 4 && rest.ends_with('.'), "{at}: a TODO is a whole sentence");
            }
        }
    }
}

/// A script that no test names is a story that nobody hears.
#[test]
fn every_script_is_a_test() {
    let runners = files("rs").into_iter().filter(|file| file.contains("/tests/it/"));
    let runners: Vec<(String, String)> = runners.map(|file| (read(&file), file)).collect();
    for file in tracked() {
        let path: Vec<&str> = file.split('/').collect();
        let [member, "tests", "it", "scripts", folder, name] = path[..] else { continue };
        let list = format!("\nscripts! {{ {folder}");
        let of_member = format!("{member}/tests/it/");
        let is_listed =
            runners.iter().filter(|(_, it)| it.starts_with(&of_member)).any(|(text, _)| {
                let names = text.split_once(&list).and_then(|(_, rest)| rest.split_once('}'));
                names.is_some_and(|(names, _)| names.split_whitespace().any(|it| it == name))
            });
        assert!(is_listed, "{file}: add {name} to `scripts! {{ {folder} …` in {of_member}");
    }
}

#[test]
fn allowed_lints_say_why() {
    for file in files("rs") {
        let text = read(&file);
        for (position, _) in text.match_indices("allow(clippy::") {
            let rest = &text[position..];
            let end = rest.find(")]").unwrap_or(rest.len());
            assert!(rest[..end].contains("reason ="), "{file}: an allow without a reason");
        }
    }
}

#[test]
fn dependencies_come_from_the_registry_and_the_wire_has_one_version() {
    let lock: toml::Table = read("Cargo.lock").parse().unwrap();
    let packages = lock["package"].as_array().unwrap();
    for package in packages {
        let source = package.get("source").and_then(toml::Value::as_str).unwrap_or("registry+");
        assert!(source.starts_with("registry+"), "{} is from {source}", package["name"]);
    }
    // Two versions of these have types of one name that do not fit each other.
    for name in ["bytes", "envoy-types", "http", "openraft", "prost", "rocksdb", "tokio", "tonic"] {
        let count = packages.iter().filter(|it| it["name"].as_str() == Some(name)).count();
        assert_eq!(count, 1, "versions of {name}");
    }
}

#[test]
fn nothing_names_a_machine() {
    let home = concat!("/ho", "me/");
    let root = concat!("/ro", "ot/");
    for file in tracked() {
        let Ok(text) = fs::read_to_string(top().join(&file)) else { continue };
        for (number, line) in text.lines().enumerate() {
            let names = line.contains(home) || line.contains(root);
            assert!(!names, "{file}:{}: a path of one machine", number + 1);
        }
    }
}

#[test]
fn links_in_documents_lead_somewhere() {
    for file in files("md") {
        let text = read(&file);
        let folder = Path::new(&file).parent().map(Path::to_owned).unwrap_or_default();
        for target in links(&text) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || target.contains("://") {
                continue;
            }
            assert!(top().join(&folder).join(path).exists(), "{file} links to {target}");
        }
    }
}

/// So that no number leads out of the repository.
#[test]
fn every_number_that_is_cited_is_explained() {
    let rules = read("docs/rules.md");
    let listed: BTreeSet<&str> =
        rules.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next()).collect();
    let scripts = tracked().into_iter().filter(|file| file.contains("/tests/it/scripts/"));
    for file in files("rs").into_iter().chain(scripts) {
        let mark = if file.ends_with(".rs") { "//" } else { "#" };
        for (number, line) in read(&file).lines().enumerate() {
            let Some((_, comment)) = line.split_once(mark) else { continue };
            for cited in citations(comment) {
                let at = format!("{file}:{}", number + 1);
                assert!(listed.contains(cited.as_str()), "{at}: {cited} is not in docs/rules.md");
            }
        }
    }
}

#[test]
fn citations_are_found() {
    let comment =
        " Rules 5 and 12, bug 16: F2, and (D9) holds; P50x, SHA1 and rule of thumb do not.";
    assert_eq!(citations(comment), ["Rule 5", "Rule 12", "Bug 16", "F2", "D9"]);
}

/// Files that the maps of the repository name. A path from the top of it, in backquotes.
#[test]
fn files_in_the_maps_exist() {
    for map in ["ARCHITECTURE.md", "docs/rules.md"] {
        let text = read(map);
        let paths = text.split('`').skip(1).step_by(2).filter(|quoted| {
            let is_file = [".rs", ".md", ".proto"].iter().any(|kind| quoted.ends_with(kind));
            quoted.contains('/') && is_file
        });
        for path in paths {
            assert!(top().join(path).exists(), "{map} names {path}");
        }
    }
}

/// Tests that docs/rules.md names: a file, a function in a file, or a script, of one folder or of both.
#[test]
fn tests_that_the_rules_name_exist() {
    let files = tracked();
    let is_script = |name: &str| {
        let end = format!("/{name}");
        files.iter().any(|file| file.contains("/tests/it/scripts/") && file.ends_with(&end))
    };
    for line in read("docs/rules.md").lines().filter(|line| line.starts_with("| ")) {
        let Some(tests) = line.trim_end_matches(" |").rsplit(" | ").next() else { continue };
        for named in tests.split('`').skip(1).step_by(2) {
            let found = match named.split_once("::") {
                Some((path, function)) => read(path).contains(&format!("fn {function}(")),
                None => top().join(named).exists() || is_script(named),
            };
            assert!(found, "docs/rules.md names {named}");
        }
    }
}

/// One of them would link what the other has compiled, if its files are the older ones.
#[test]
fn checkouts_build_apart() {
    let target_dir = |checkout: &Path| {
        fs::create_dir(checkout.join("scripts")).unwrap();
        for file in ["scripts/env.sh", "Cargo.lock"] {
            fs::copy(top().join(file), checkout.join(file)).unwrap();
        }
        let script = "source scripts/env.sh && echo \"$CARGO_TARGET_DIR\"";
        let mut bash = Command::new("bash");
        bash.args(["-euc", script]).current_dir(checkout).env_remove("CARGO_TARGET_DIR");
        let output = bash.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let checkouts = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, other] = checkouts.each_ref().map(|it| target_dir(it.path()));
    assert_ne!(one, other);
}

#[test]
fn ci_runs_what_the_readme_says() {
    assert!(read("README.md").contains("\nscripts/test\n"));
    assert!(read("README.md").contains("\nscripts/up\n"));
    let ci = read(".ci/run");
    let commands: Vec<&str> =
        ci.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(commands, ["set -eu", "cd \"$(dirname \"$0\")/..\"", "exec scripts/test"]);
}

/// Rules that a comment names: a letter with a number, and what follows "rule" and "bug".
fn citations(comment: &str) -> Vec<String> {
    let mut cited = Vec::new();
    let mut kind = None;
    for word in comment.split_whitespace() {
        let bare = word.trim_matches(|it: char| !it.is_alphanumeric());
        let digits = bare.strip_prefix(['F', 'S', 'U', 'P', 'D']);
        match (bare.to_ascii_lowercase().as_str(), kind) {
            ("rule" | "rules", _) => kind = Some("Rule"),
            ("bug" | "bugs", _) => kind = Some("Bug"),
            ("and", Some(_)) => {}
            (_, Some(of)) if is_number(bare) => cited.push(format!("{of} {bare}")),
            _ => {
                kind = None;
                if digits.is_some_and(is_number) {
                    cited.push(bare.to_owned());
                }
            }
        }
    }
    cited
}

fn is_number(text: &str) -> bool {
    (1..=2).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_digit())
}

/// Targets of `[text](target)`, outside blocks of code.
fn links(text: &str) -> Vec<String> {
    let mut targets = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for (position, _) in line.match_indices("](") {
            let rest = &line[position + 2..];
            if let Some(end) = rest.find(')') {
                targets.push(rest[..end].to_owned());
            }
        }
    }
    targets
}

/// Lines that are not comments, with their numbers.
fn code(file: &str) -> Vec<(usize, String)> {
    let text = read(file);
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.to_owned()));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//")).collect()
}

fn dependencies(folder: &str, table: &str) -> Vec<String> {
    let manifest = manifest(folder);
    let names = manifest.get(table).and_then(toml::Value::as_table);
    names.map(|names| names.keys().cloned().collect()).unwrap_or_default()
}

fn manifest(folder: &str) -> toml::Table {
    read(&format!("{folder}/Cargo.toml")).parse().unwrap()
}

/// Files of one kind, but for these here, which name what they look for.
fn files(extension: &str) -> Vec<String> {
    let suffix = format!(".{extension}");
    let is_this = |file: &str| file.starts_with("tests/tests/tidy/");
    tracked().into_iter().filter(|file| file.ends_with(&suffix) && !is_this(file)).collect()
}

/// What the repository holds or would hold, relative to its top.
fn tracked() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(top())
        .output()
        .unwrap();
    assert!(output.status.success(), "git ls-files: {output:?}");
    let listed = String::from_utf8(output.stdout).unwrap();
    listed.lines().filter(|file| top().join(file).exists()).map(str::to_owned).collect()
}

fn read(file: &str) -> String {
    fs::read_to_string(top().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
