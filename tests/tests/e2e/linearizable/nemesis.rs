//! What happens to the servers, in an order that a seed decides.

use harness::{Server, eventually, eventually_some, wait::LATE};
use nix::sys::signal::Signal;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::clients::Clients;
use crate::modes;

/// Everything that may happen in a round.
const KINDS: [Disturbance; 6] = [
    Disturbance::KillOne,
    Disturbance::KillLeader,
    Disturbance::KillTwo,
    Disturbance::FreezeLeader,
    Disturbance::FreezeFollower,
    Disturbance::Terminate,
];

#[derive(Clone, Copy, Debug)]
enum Disturbance {
    KillOne,
    KillLeader,
    KillTwo,
    FreezeLeader,
    FreezeFollower,
    Terminate,
}

/// Does one thing after the other to the servers, each of [`KINDS`] before any again.
#[derive(Debug)]
pub(super) struct Nemesis {
    random: StdRng,
    next: Vec<Disturbance>,
}

impl Nemesis {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), next: Vec::new() }
    }

    /// Disturbs running servers and sees to it that all run again. Returns what was done.
    pub(super) async fn disturb(&mut self, servers: &mut [Server], clients: &Clients) -> String {
        if self.next.is_empty() {
            self.next.extend(KINDS);
            self.next.shuffle(&mut self.random);
        }
        let what = self.next.pop().expect("it was filled");
        let any = self.random.random_range(0..servers.len());
        let at = match what {
            Disturbance::KillLeader | Disturbance::FreezeLeader => leader(servers).await,
            Disturbance::FreezeFollower => {
                let step = self.random.random_range(1..servers.len());
                (leader(servers).await + step) % servers.len()
            }
            Disturbance::KillOne | Disturbance::KillTwo | Disturbance::Terminate => any,
        };
        match what {
            Disturbance::KillOne | Disturbance::KillLeader => {
                servers[at].kill();
                self.start_again(&mut servers[at], clients).await;
            }
            Disturbance::KillTwo => self.kill_two(servers, at),
            Disturbance::FreezeLeader | Disturbance::FreezeFollower => {
                freeze(servers, at, clients).await;
            }
            Disturbance::Terminate => {
                let server = &mut servers[at];
                eventually("the server is ready", LATE, async || server.is_ready().await).await;
                assert_eq!(server.terminate().await.code(), Some(0), "{}", server.output());
                self.start_again(server, clients).await;
            }
        }
        format!("{what:?} {}", servers[at].name)
    }

    /// At once, or after the others have gone on without it.
    async fn start_again(&mut self, server: &mut Server, clients: &Clients) {
        if self.random.random() {
            clients.written().await;
        }
        server.start();
    }

    /// Kills a server and its neighbor, and starts them in any order.
    fn kill_two(&mut self, servers: &mut [Server], at: usize) {
        let mut both = [at, (at + 1) % servers.len()];
        both.iter().for_each(|at| servers[*at].kill());
        both.shuffle(&mut self.random);
        both.iter().for_each(|at| servers[*at].start());
    }
}

/// Stops a server without ending it, until another one leads and has acknowledged a write that is
/// older than what the frozen server's clients ask it for: if that server believes when it wakes
/// that it still leads, it answers them wrongly.
async fn freeze(servers: &[Server], at: usize, clients: &Clients) {
    servers[at].signal(Signal::SIGSTOP);
    let others: Vec<&Server> =
        servers.iter().filter(|server| server.name != servers[at].name).collect();
    let led = async || modes::leader(others.iter().copied()).await;
    eventually_some("another server leads", LATE, led).await;
    clients.written().await;
    clients.asked(at).await;
    servers[at].signal(Signal::SIGCONT);
}

async fn leader(servers: &[Server]) -> usize {
    eventually_some("a server leads", LATE, async || modes::leader(servers).await).await
}
