//! The committed descriptors are those of the locked envoy-types.
//!
//! `UPDATE_GOLDENFILES=1` writes them anew.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use protox::{
    Compiler, Error,
    file::{ChainFileResolver, File, FileResolver, GoogleFileResolver},
};
use regex::{Captures, Regex};

/// Folders of envoy-types' `proto`, in each of which imports begin.
const ROOTS: [&str; 7] = [
    "data-plane-api",
    "xds",
    "protoc-gen-validate",
    "googleapis",
    "cel-spec/proto",
    "client_model",
    "opentelemetry-proto",
];

/// Where the messages stand that a resource may hold. Their imports come with them.
const WANTED: [&str; 5] =
    ["envoy/config", "envoy/extensions", "envoy/service/runtime", "udpa/type", "xds/type"];

/// As hard as it goes; it is done once for each version.
const COMPRESSION: u8 = 10;

#[test]
fn the_descriptors_are_those_of_the_locked_envoy_types() {
    let compiled = compile(&package());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("descriptors/envoy.binpb.deflate");
    if env::var_os("UPDATE_GOLDENFILES").is_some() {
        let compressed = miniz_oxide::deflate::compress_to_vec(&compiled, COMPRESSION);
        fs::write(&file, compressed).unwrap();
    }
    let committed = fs::read(&file).unwrap();
    let committed = miniz_oxide::inflate::decompress_to_vec(&committed).unwrap();
    // Not by assert_eq, which would print a million bytes.
    assert!(
        committed == compiled,
        "documents/descriptors is not what the locked envoy-types brings; make it anew with \
         UPDATE_GOLDENFILES=1 cargo test -p quorate-documents --test it descriptors"
    );
}

#[test]
fn every_type_of_resource_is_described() {
    for url in documents::type_urls() {
        let name = url.strip_prefix("type.googleapis.com/").unwrap();
        assert!(documents::descriptors().get_message_by_name(name).is_some(), "{name}");
    }
}

/// Without comments and positions.
fn compile(package: &Path) -> Vec<u8> {
    let mut roots = ROOTS.map(|it| package.join("proto").join(it)).to_vec();
    roots.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("descriptors"));
    let mut resolver = ChainFileResolver::new();
    resolver.add(Sources::new(&roots));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(false);
    for root in &roots {
        let mut files = Vec::new();
        for wanted in WANTED {
            collect(&root.join(wanted), root, &mut files);
        }
        files.sort();
        compiler.open_files(&files).unwrap();
    }
    // Encoded by the compiler: options that it does not know itself, as constraints, would be lost
    // in the generated structs.
    compiler.encode_file_descriptor_set()
}

/// The sources, with the names of messages made absolute.
///
/// A relative name begins in a package further out. The compiler takes the closest package whose
/// name begins alike, where protoc sees only those that the file imports.
struct Sources {
    roots: Vec<PathBuf>,
    packages: BTreeSet<String>,
}

impl Sources {
    fn new(roots: &[PathBuf]) -> Self {
        let mut packages = BTreeSet::new();
        for root in roots {
            let mut files = Vec::new();
            collect(root, root, &mut files);
            let sources = files.iter().map(|it| fs::read_to_string(root.join(it)).unwrap());
            packages.extend(sources.filter_map(|it| package_of(&it)));
        }
        Self { roots: roots.to_vec(), packages }
    }

    /// The package that a relative one is, seen from another.
    fn absolute(&self, from: &str, relative: &str) -> Option<String> {
        let ends = from.match_indices('.').map(|(at, _)| at).chain([from.len()]);
        let scopes: Vec<&str> = ends.map(|end| &from[..end]).collect();
        let inner = scopes.iter().rev().map(|scope| format!("{scope}.{relative}"));
        inner.chain([relative.to_owned()]).find(|it| self.packages.contains(it))
    }
}

impl FileResolver for Sources {
    fn open_file(&self, name: &str) -> Result<File, Error> {
        let sources = self.roots.iter().map(|root| fs::read_to_string(root.join(name)));
        let Some(source) = sources.flatten().next() else {
            return Err(Error::file_not_found(name));
        };
        let from = package_of(&source).unwrap_or_default();
        let qualified = Regex::new(r"([\s<])([a-z0-9_]+(?:\.[a-z0-9_]+)*)(\.[A-Z])").unwrap();
        let source = qualified.replace_all(&source, |it: &Captures<'_>| {
            let package = self.absolute(&from, &it[2]).map(|package| format!(".{package}"));
            format!("{}{}{}", &it[1], package.as_deref().unwrap_or(&it[2]), &it[3])
        });
        File::from_source(name, &source)
    }
}

fn package_of(source: &str) -> Option<String> {
    let line = source.lines().find_map(|it| it.strip_prefix("package "))?;
    Some(line.trim_end_matches([';', ' ']).to_owned())
}

fn collect(folder: &Path, root: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, root, files);
        } else if path.extension().is_some_and(|it| it == "proto") {
            files.push(path.strip_prefix(root).unwrap().to_owned());
        }
    }
}

/// Where cargo keeps the locked envoy-types, also if it is vendored.
fn package() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {output:?}");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let found = packages.iter().find(|it| it["name"] == "envoy-types").unwrap();
    let manifest = PathBuf::from(found["manifest_path"].as_str().unwrap());
    manifest.parent().unwrap().to_owned()
}
