//! Many owners that fall silent at once: which instances are kept, which may register, and which
//! end.

use std::{ops::RangeInclusive, time::Duration};

use proto::quorate::v1::{
    DeregisterRequest, DeregisterSilentRequest, Health, Instance, ListInstancesRequest,
    RegisterRequest, RemoveServiceRequest,
};
use tokio::time::{sleep, timeout};
use tonic::Code;

use crate::harness::{Disk, LATCH_PATIENCE, Server, eventually, instance, register, renew};

/// The shortest lease that is granted, and one that outlasts the test.
const TTL_MS: u64 = 3_000;
const LONG_TTL_MS: u64 = 120_000;

fn start(id: &str, address: &str, lease_id: u64, start: u64) -> RegisterRequest {
    RegisterRequest { lease_id, start, ttl_ms: TTL_MS, ..register(instance("orders", id, address)) }
}

async fn instances(server: &Server) -> Vec<Instance> {
    let request = ListInstancesRequest { service: "orders".to_owned() };
    server.registry().list_instances(request).await.unwrap().into_inner().instances
}

async fn silent(server: &Server) -> usize {
    instances(server).await.iter().filter(|it| it.silent).count()
}

/// D10: this holds for a fleet of three that is alone in its mesh, too.
#[tokio::test]
async fn a_fleet_with_fixed_ids_that_died_is_let_in_at_other_addresses() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    for n in 1..=3 {
        let request = start(&format!("web-{n}"), &format!("10.0.0.{n}:80"), n, 1);
        server.registry().register(request).await.unwrap();
    }
    let back = |n: u64| start(&format!("web-{n}"), &format!("10.0.1.{n}:80"), 10 + n, 2);
    let refused = server.registry().register(back(1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    assert!(refused.metadata().contains_key("quorate-holder-heard-ms-ago"), "{refused:?}");
    assert!(refused.metadata().contains_key("quorate-holder-left-ms"), "{refused:?}");

    eventually("the fleet is known to be silent", || async {
        (silent(&server).await == 3).then_some(())
    })
    .await;
    for n in 1..=3 {
        server.registry().register(back(n)).await.unwrap();
    }
    let now: Vec<_> =
        instances(&server).await.into_iter().map(|it| (it.address, it.silent)).collect();
    assert_eq!(now, [1, 2, 3].map(|n| (format!("10.0.1.{n}:80"), false)));
    // The leases of the old owners are unknown, in case those owners are alive after all.
    let renewed = server.registry().renew(renew(&[1, 2, 3])).await.unwrap().into_inner();
    assert_eq!(renewed.unknown, [1, 2, 3]);
}

/// D9: a host with 40 of 200 dies for good, and 40 new ones come.
#[tokio::test]
async fn those_who_died_for_good_are_served_last_and_end_slowly() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let add = async |ids: RangeInclusive<u64>, ttl_ms| {
        for n in ids {
            let address = format!("10.0.{}.{}:80", n / 200, n % 200 + 1);
            let request = RegisterRequest { ttl_ms, ..start(&format!("i{n}"), &address, n, 1) };
            server.registry().register(request).await.unwrap();
        }
    };
    let renew_all = async |ids: &[u64]| {
        let reply = server.registry().renew(renew(ids)).await.unwrap().into_inner();
        assert_eq!(reply.unknown, Vec::<u64>::new());
    };
    let mut alive: Vec<u64> = (1..=160).collect();
    add(1..=160, LONG_TTL_MS).await;
    for n in 161..=200 {
        add(n..=n, TTL_MS).await;
        renew_all(&(161..=n).collect::<Vec<_>>()).await;
    }
    renew_all(&alive).await;
    eventually("the forty are silent", || async { (silent(&server).await == 40).then_some(()) })
        .await;
    add(201..=240, LONG_TTL_MS).await;
    alive.extend(201..=240);
    assert!(instances(&server).await.iter().all(|it| it.health() != Health::Down));

    let mut before = 40;
    let ended = timeout(LATCH_PATIENCE + Duration::from_secs(300), async {
        loop {
            renew_all(&alive).await;
            let now = silent(&server).await;
            assert!(now <= before);
            before = now;
            if now == 0 {
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
    });
    ended.await.expect("the slow lane moves");
    let left = instances(&server).await;
    assert_eq!(left.iter().filter(|it| it.health() == Health::Healthy).count(), 200);
    assert_eq!(left.iter().filter(|it| it.health() == Health::Down).count(), 40);
    let request = DeregisterSilentRequest::default();
    let reply = server.registry().deregister_silent(request).await.unwrap().into_inner();
    assert_eq!(reply.removed, 40);
}

/// P14: an instance is replaced at its address while the one before still says goodbye.
#[tokio::test]
async fn a_goodbye_leaves_the_successor_alone() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let mut registry = server.registry();
    registry.register(start("a", "10.0.0.1:80", 1, 100)).await.unwrap();
    let reply = registry.register(start("a", "10.0.0.1:80", 2, 200)).await.unwrap().into_inner();
    assert_eq!(reply.lease_id, 2);
    let goodbye = DeregisterRequest {
        service: "orders".to_owned(),
        id: "a".to_owned(),
        lease_id: 1,
        ..DeregisterRequest::default()
    };
    assert!(!registry.deregister(goodbye).await.unwrap().into_inner().existed);
    assert_eq!(instances(&server).await.len(), 1);
    let renewed = registry.renew(renew(&[2])).await.unwrap().into_inner();
    assert_eq!(renewed.unknown, Vec::<u64>::new());
}

#[tokio::test]
async fn a_service_is_removed_with_what_is_dead_and_not_with_what_lives() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let mut registry = server.registry();
    registry.register(start("a", "10.0.0.1:80", 1, 1)).await.unwrap();
    let remove = |force| RemoveServiceRequest {
        name: "orders".to_owned(),
        force,
        ..RemoveServiceRequest::default()
    };
    let refused = registry.remove_service(remove(false)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted, "{refused}");
    assert!(registry.remove_service(remove(true)).await.unwrap().into_inner().existed);
    assert!(!registry.remove_service(remove(true)).await.unwrap().into_inner().existed);
    assert_eq!(instances(&server).await, []);
}
