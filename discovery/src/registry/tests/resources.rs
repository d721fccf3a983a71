use proto::quorate::v1::{
    ClientKind, DeleteResources, MetadataMatch, PutResources, ResourceReference, ResourceSelector,
    WrittenResource,
};

use super::*;

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

fn cluster(name: &str, content: &str) -> WrittenResource {
    WrittenResource {
        type_url: CLUSTER.to_owned(),
        name: name.to_owned(),
        resource: content.as_bytes().to_vec().into(),
        ..WrittenResource::default()
    }
}

fn put(file: &str, resources: &[WrittenResource]) -> Command {
    let resources = resources.to_vec();
    Command::PutResources(PutResources { file: file.to_owned(), resources })
}

fn delete(file: &str) -> Command {
    Command::DeleteResources(DeleteResources { file: file.to_owned() })
}

/// Names, revisions and content of what a file holds.
fn held(mesh: &Mesh, file: &str) -> Vec<(String, u64, Vec<u8>)> {
    let resources = mesh.registry.resources_of(file);
    resources.map(|it| (it.key.name.clone(), it.revision, it.bytes.to_vec())).collect()
}

#[test]
fn a_file_holds_what_was_put_last() {
    let mut mesh = Mesh::default();
    let done = mesh.run(put("a.yaml", &[cluster("x", "1"), cluster("y", "1")])).unwrap();
    assert!(done.changed && !done.existed);
    mesh.run(put("b.yaml", &[cluster("z", "1")])).unwrap();
    let done = mesh.run(put("a.yaml", &[cluster("y", "2"), cluster("w", "1")])).unwrap();
    assert!(done.changed && done.existed);
    assert_eq!(done.removed, 1);
    assert_eq!(
        held(&mesh, "a.yaml"),
        [("w".to_owned(), 3, b"1".to_vec()), ("y".to_owned(), 3, b"2".to_vec())]
    );
    assert_eq!(held(&mesh, "b.yaml"), [("z".to_owned(), 2, b"1".to_vec())]);
    assert_eq!(mesh.registry.resource_files(), ["a.yaml", "b.yaml"].into());
    assert_eq!(mesh.touched.len(), 3);
}

#[test]
fn what_is_put_again_unchanged_touches_nothing() {
    let mut mesh = Mesh::default();
    let both = [cluster("x", "1"), cluster("y", "1")];
    mesh.run(put("a.yaml", &both)).unwrap();
    let before = mesh.registry.clone();
    let done = mesh.run(put("a.yaml", &both)).unwrap();
    assert!(!done.changed && done.existed);
    assert_eq!((mesh.touched.len(), &mesh.registry), (0, &before));
    mesh.run(put("a.yaml", &[cluster("x", "1"), cluster("y", "2")])).unwrap();
    let revisions: Vec<u64> = mesh.registry.resources().map(|it| it.revision).collect();
    assert_eq!(revisions, [1, 3]);
    assert_eq!(mesh.touched.len(), 1);
}

#[test]
fn a_version_follows_the_content_and_a_selector_is_a_change() {
    let mut mesh = Mesh::default();
    let selector = ResourceSelector {
        zones: vec!["b".to_owned(), "a".to_owned()],
        kinds: vec![ClientKind::Envoy.into()],
        metadata: vec![MetadataMatch {
            path: vec!["team".to_owned()],
            values: vec!["checkout".to_owned()],
        }],
        ..ResourceSelector::default()
    };
    let reference =
        ResourceReference { type_url: CLUSTER.to_owned(), name: "y".to_owned(), required: true };
    let selected = WrittenResource {
        selector: Some(selector),
        references: vec![reference],
        ..cluster("x", "1")
    };
    mesh.run(put("a.yaml", &[cluster("x", "1")])).unwrap();
    mesh.run(put("b.yaml", std::slice::from_ref(&selected))).unwrap();
    let versions: BTreeSet<u64> = mesh.registry.resources().map(|it| it.version).collect();
    assert_eq!(versions.len(), 1);
    assert_eq!(mesh.registry.resources_named(CLUSTER, "x").count(), 2);
    let done = mesh.run(put("a.yaml", &[selected])).unwrap();
    assert!(done.changed);
}

#[test]
fn one_name_may_stand_in_a_file_for_different_clients() {
    let mut mesh = Mesh::default();
    mesh.run(put("a.yaml", &[cluster("x", "1"), cluster("x", "2")])).unwrap();
    assert_eq!(held(&mesh, "a.yaml").len(), 2);
    mesh.run(put("a.yaml", &[cluster("x", "1")])).unwrap();
    assert_eq!(held(&mesh, "a.yaml"), [("x".to_owned(), 1, b"1".to_vec())]);
}

#[test]
fn a_file_is_deleted_whole_and_once() {
    let mut mesh = Mesh::default();
    mesh.run(put("a.yaml", &[cluster("x", "1"), cluster("y", "1")])).unwrap();
    mesh.run(put("a.yaml2", &[cluster("x", "1")])).unwrap();
    let done = mesh.run(delete("a.yaml")).unwrap();
    assert_eq!((done.removed, done.existed), (2, true));
    assert_eq!(mesh.registry.resource_files(), ["a.yaml2"].into());
    let done = mesh.run(delete("a.yaml")).unwrap();
    assert_eq!((done.removed, done.changed), (0, false));
}

#[test]
fn what_has_no_place_is_refused_whole() {
    let mut mesh = Mesh::default();
    let kinds = ResourceSelector { kinds: vec![9], ..ResourceSelector::default() };
    let unknown = WrittenResource { selector: Some(kinds), ..cluster("y", "1") };
    for refused in [
        put("", &[cluster("x", "1")]),
        put("a.yaml", &[]),
        put("a.yaml", &[cluster("x", "1"), cluster("", "1")]),
        put("a.yaml", &[cluster("x", "1"), cluster("a\0b", "1")]),
        put("a.yaml", &[cluster("x", "1"), unknown]),
    ] {
        assert_eq!(mesh.run(refused), Err(Reason::Malformed));
        assert_eq!(mesh.registry, Registry::default());
    }
    let large = cluster("x", &"x".repeat(MAX_FILE_BYTES));
    assert_eq!(mesh.run(put("a.yaml", &[large])), Err(Reason::Exhausted));
    let many: Vec<WrittenResource> =
        (0..=MAX_RESOURCES).map(|it| cluster(&it.to_string(), "")).collect();
    assert_eq!(mesh.run(put("a.yaml", &many)), Err(Reason::Exhausted));
}
