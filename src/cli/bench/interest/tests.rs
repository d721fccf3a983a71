use super::*;

#[test]
fn clients_subscribe_to_everything_unless_told_otherwise() {
    let names = names(5);
    let interests =
        share_out(&names, &Wish { clients: 3, changing: [(1, 0)].into(), ..Wish::default() });
    assert_eq!(interests.len(), 3);
    for interest in &interests {
        assert!(Arc::ptr_eq(interest, &interests[0]), "one set of names for all");
        assert_eq!(has(interest), [0, 1, 2, 3, 4]);
        assert_eq!(interest.cluster_names, None);
        assert_eq!(interest.changing, [0]);
    }
}

#[test]
fn only_the_interested_have_what_changes() {
    let names = names(5);
    let wish = Wish {
        clients: 4,
        interested: Some(1),
        changing: [(3, 0), (0, 1)].into(),
        ..Wish::default()
    };
    let interests = share_out(&names, &wish);
    assert_eq!(has(&interests[0]), [0, 1, 2, 3, 4]);
    assert_eq!(interests[0].changing, [0, 1]);
    for interest in &interests[1..] {
        assert_eq!(has(interest), [1, 2, 4]);
        assert_eq!(interest.changing.len(), 0);
        // As Envoy does: all clusters come, and only the assignments are named.
        assert_eq!(interest.clusters, Positions::of(&[0, 1, 2, 3, 4]));
    }
}

#[test]
fn names_that_one_command_changes_are_one_in_the_ledger() {
    let wish = Wish { clients: 1, changing: [(1, 0), (2, 0)].into(), ..Wish::default() };
    assert_eq!(share_out(&names(3), &wish)[0].changing, [0]);
}

#[test]
fn parts_are_spread_so_that_every_name_is_wanted_alike() {
    let names = names(10);
    let changing = (0..10).zip(0..).collect();
    let wish = Wish { clients: 20, subscribe: Some(3), changing, ..Wish::default() };
    let interests = share_out(&names, &wish);
    for name in 0..10 {
        let wanted = interests.iter().filter(|it| it.assignments.contains(name)).count();
        assert_eq!(wanted, 6, "name {name}");
    }
    assert_eq!(interests[0].clusters, interests[0].assignments);
    let distinct: std::collections::BTreeSet<_> = interests.iter().map(Arc::as_ptr).collect();
    assert_eq!(distinct.len(), 10);
}

#[test]
fn a_part_for_the_interested_has_what_changes_besides() {
    let names = names(10);
    let wish =
        Wish { clients: 6, subscribe: Some(2), interested: Some(2), changing: [(0, 0)].into() };
    let interests = share_out(&names, &wish);
    let wanted = |name| interests.iter().filter(|it| it.assignments.contains(name)).count();
    assert_eq!(wanted(0), 2);
    assert_eq!(has(&interests[0]).len(), 3);
    assert_eq!(has(&interests[5]).len(), 2);
}

#[test]
fn more_names_than_there_are_is_all_of_them() {
    let wish = Wish { clients: 1, subscribe: Some(50), ..Wish::default() };
    assert_eq!(has(&share_out(&names(3), &wish)[0]), [0, 1, 2]);
}

#[test]
fn clusters_that_share_an_assignment_count_once() {
    let pairs = [("a", "x"), ("b", "x"), ("c", "y")];
    let names = Names::new(pairs.map(|(cluster, it)| (cluster.into(), it.into())).into());
    assert_eq!(names.len(), 2);
    assert_eq!((names.assignment(b"y"), names.cluster(b"b")), (Some(1), None));
}

#[test]
fn a_set_is_empty_once_everything_was_removed() {
    let mut set = Positions::of(&[0, 63, 64, 700]);
    for position in [700, 5, 0, 64, 64, 63, 10_000] {
        assert!(!set.is_empty());
        set.remove(position);
        if position == 63 {
            break;
        }
    }
    assert!(set.is_empty());
}

fn names(count: usize) -> Names {
    let name = |position: usize| Bytes::from(format!("service-{position:04}"));
    Names::new((0..count).map(|it| (name(it), name(it))).collect())
}

fn has(interest: &Interest) -> Vec<u32> {
    (0..1000).filter(|it| interest.assignments.contains(*it)).collect()
}
