//! The phases of the measurement, one after the other.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    bare_writes,
    board::{Board, Traffic},
    changes::{self, Pace, Source},
    client::{Common, Watched},
    interest::{Names, Wish, share_out},
    ledger::Ledger,
    load::Load,
    options::XdsArgs,
    progress::Progress,
    registrar::Registrar,
    report::{BareWrites, Changes, FirstSync, Lost, Phase, Registration, Report, Watch},
    scout,
    under_test::UnderTest,
    usage::Usage,
};
use crate::{
    failure::{Code, Failure},
    open_files,
};

/// Open files beside connections.
const OTHER_FILES: u64 = 128;

/// What is left to do after the last arrival, as acknowledgements are, belongs to its phase.
const SETTLE: Duration = Duration::from_millis(300);

const LOOK_EVERY: Duration = Duration::from_millis(250);

pub(super) async fn run(args: &XdsArgs) -> Result<Report, Failure> {
    enough_open_files(args)?;
    let mut progress = Progress::new();
    let mut under_test = UnderTest::find(args, &mut progress).await?;
    let measured = measured(args, &mut under_test, &mut progress).await;
    // Whatever failed, that the server ended is the reason.
    let measured = measured.map_err(|failure| under_test.check().err().unwrap_or(failure));
    progress.clear();
    let ended = under_test.end(&mut progress).await;
    let report = measured?;
    ended?;
    Ok(report)
}

fn enough_open_files(args: &XdsArgs) -> Result<(), Failure> {
    let connections = u64::from(args.connections()).max(bare_writes::OPEN_FILES as u64);
    let wanted = connections + OTHER_FILES;
    let limit = open_files::raise_limit()
        .map_err(|error| Failure::other("cannot raise the limit of open files", &error))?;
    if limit >= wanted {
        return Ok(());
    }
    let message = format!("this takes {wanted} open files, and the process may have {limit}");
    Err(Failure::usage(message).hint(format!(
        "raise the hard limit (`ulimit -n {wanted}` as root, LimitNOFILE, --ulimit nofile), or let \
         clients share connections with --connections"
    )))
}

async fn measured(
    args: &XdsArgs,
    under_test: &mut UnderTest,
    progress: &mut Progress,
) -> Result<Report, Failure> {
    let registration = under_test.register(args, progress).await?;
    let Some(registrar) = under_test.registrar.clone() else {
        return load(args, under_test, registration, progress).await;
    };
    tokio::select! {
        report = load(args, under_test, registration, progress) => report,
        failure = registrar.keep() => Err(failure),
    }
}

/// Everything from the first client on.
async fn load(
    args: &XdsArgs,
    under_test: &mut UnderTest,
    registration: Option<Registration>,
    progress: &mut Progress,
) -> Result<Report, Failure> {
    progress.tell("asking for the clusters");
    let node = args.nodes().of(0);
    let server = under_test.servers[0];
    let names = scout::names(server, args.variant, &node, args.timeout).await?;
    let clusters = names.len();
    let changing = changing(args, &names)?;
    let wish = Wish {
        clients: args.clients,
        subscribe: args.subscribe,
        interested: args.interested,
        changing: changing.clone(),
    };
    let interests = share_out(&names, &wish);
    let watched = if changing.is_empty() { Watched::Anything } else { Watched::Names(changing) };
    let common = Arc::new(Common { variant: args.variant, names, watched });
    let (changing, is_stamped) = match args.has_registry() {
        true => (args.changing(), true),
        false => (1, false),
    };
    let ledger = Ledger::new(args.changes_to_make(), changing, is_stamped);

    progress.tell(&format!("starting {} clients", args.clients));
    let layout = args.layout(under_test.servers.clone());
    let begun = Mark::set(under_test, Traffic::default())?;
    let board = Arc::new(Board::new(args.clients, ledger));
    let load = Load::start(&layout, &args.nodes(), &common, interests, &board);
    let (first_sync, late) = first_sync(args, under_test, &board, begun, progress).await?;
    let watch = watch(args, under_test, &board, progress).await?;
    let changes = make_changes(args, under_test, &board, progress).await?;
    let lost = Lost::of(board.losses(), late);
    load.stop().await;
    under_test.check()?;
    let bare_writes = match &changes {
        Some(it) if it.responses > 0 => Some(it.bytes_a_client_and_change.round() as usize),
        Some(_) | None => None,
    };
    let bare_writes = match bare_writes.map(|bytes| bytes.clamp(1, bare_writes::MOST_BYTES)) {
        Some(bytes) => Some(BareWrites::of(bytes, bare_writes::measure(bytes).await?)),
        None => None,
    };
    Ok(Report {
        variant: args.variant.name(),
        servers: layout.servers.iter().map(ToString::to_string).collect(),
        clients: args.clients,
        connections: args.connections(),
        clusters,
        registration,
        first_sync,
        watch,
        changes,
        lost,
        bare_writes,
    })
}

/// The names that will change, by position: where each stands in the ledger.
fn changing(args: &XdsArgs, names: &Names) -> Result<BTreeMap<u32, u32>, Failure> {
    let position = |name: &str| {
        names.assignment(name.as_bytes()).ok_or_else(|| {
            Failure::new(Code::NoneFound, format!("the server has no load assignment `{name}`"))
                .hint("is the server one of the mesh of --registry, and --change-names right?")
        })
    };
    if args.has_registry() {
        let own = 0..args.changing();
        return own.map(|number| Ok((position(&Registrar::service(number))?, number))).collect();
    }
    // They change together, by one command.
    args.change_names.iter().map(|name| Ok((position(name)?, 0))).collect()
}

/// Returns beside the figures how many clients were late.
async fn first_sync(
    args: &XdsArgs,
    under_test: &mut UnderTest,
    board: &Board,
    begun: Mark,
    progress: &mut Progress,
) -> Result<(FirstSync, u32), Failure> {
    let deadline = Instant::now() + args.ramp + args.timeout;
    let look = |board: &Board| {
        progress.show(&format!(
            "first sync: {} of {} clients",
            board.synced_clients(),
            args.clients
        ));
    };
    board.until(deadline, Board::settled, look).await;
    let late = board.waiting();
    sleep(SETTLE).await;
    under_test.check()?;
    let phase = begun.phase(under_test, board.traffic())?;
    let syncs = board.syncs();
    if syncs.is_empty() {
        return Err(nobody(args, board));
    }
    progress.tell(&format!("first sync: {} of {} clients", syncs.len(), args.clients));
    Ok((FirstSync::of(&phase, syncs, args.clients), late))
}

/// Not one client got everything.
fn nobody(args: &XdsArgs, board: &Board) -> Failure {
    let losses = board.losses();
    match losses.reasons.into_iter().max_by_key(|(_, count)| *count) {
        Some((reason, count)) => {
            let message = format!("no client was served; {count} of {}: {reason}", args.clients);
            Failure::new(Code::Unreachable, message)
                .hint("try fewer --clients; a server has limits of connections, streams and names")
        }
        None => {
            let seconds = args.timeout.as_secs();
            Failure::new(Code::Timeout, format!("no client had everything within {seconds} s"))
                .hint("try fewer --clients or --clusters, or a longer --timeout")
        }
    }
}

async fn watch(
    args: &XdsArgs,
    under_test: &UnderTest,
    board: &Board,
    progress: &mut Progress,
) -> Result<Option<Watch>, Failure> {
    if args.watch.is_zero() {
        return Ok(None);
    }
    let begun = Mark::set(under_test, board.traffic())?;
    let end = Instant::now() + args.watch;
    while Instant::now() < end {
        let left = end.saturating_duration_since(Instant::now());
        progress.show(&format!("looking on for {} s", left.as_secs()));
        sleep_until(end.min(Instant::now() + LOOK_EVERY)).await;
    }
    Ok(Some(Watch::of(&begun.phase(under_test, board.traffic())?)))
}

async fn make_changes(
    args: &XdsArgs,
    under_test: &UnderTest,
    board: &Board,
    progress: &mut Progress,
) -> Result<Option<Changes>, Failure> {
    if board.ledger.changes() == 0 {
        return Ok(None);
    }
    let source = match (&under_test.registrar, &args.change_command) {
        (Some(registrar), _) => Source::Registry(Box::new(registrar.clone())),
        (None, Some(command)) => Source::Command(command.clone()),
        (None, None) => return Ok(None),
    };
    progress.tell(&format!("making {} changes", board.ledger.changes()));
    let pace = Pace { rate: args.rate, pause: args.pause, timeout: args.timeout };
    let begun = Mark::set(under_test, board.traffic())?;
    let made = changes::make(&source, pace, board, progress).await;
    let phase = begun.phase(under_test, board.traffic())?;
    Ok(Some(Changes::of(&phase, made, board.ledger.outcome())))
}

/// The begin of a phase.
#[derive(Debug)]
struct Mark {
    at: Instant,
    traffic: Traffic,
    server: Option<Usage>,
    own: Usage,
}

impl Mark {
    fn set(under_test: &UnderTest, traffic: Traffic) -> Result<Self, Failure> {
        let (server, own) = (under_test.usage()?, Usage::own()?);
        Ok(Self { at: Instant::now(), traffic, server, own })
    }

    fn phase(self, under_test: &UnderTest, traffic: Traffic) -> Result<Phase, Failure> {
        Ok(Phase {
            took: self.at.elapsed(),
            traffic: traffic.since(self.traffic),
            server: self.server.zip(under_test.usage()?),
            bench_cpu: Usage::own()?.cpu.saturating_sub(self.own.cpu),
        })
    }
}
