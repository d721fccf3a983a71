//! A figure to compare with: what it costs this machine to write the same bytes to as many sockets,
//! with nothing around it.

use std::{
    io::{self, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};

use crate::{
    failure::{Code, Failure},
    listener,
};

/// How many sockets are written to.
pub(super) const WRITES: usize = 1_000;

/// Sockets at either end, for whoever counts open files.
pub(super) const OPEN_FILES: usize = 2 * WRITES;

/// More fits into no socket that nobody reads.
pub(super) const MOST_BYTES: usize = 64 << 10;

/// What the writes took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) took: Duration,
    /// Of the kernel and the program, delivery over loopback included.
    pub(super) cpu: Duration,
}

/// Writes so many bytes to each of [`WRITES`] connections over loopback, one after the other.
pub(super) async fn measure(bytes: usize) -> Result<Cost, Failure> {
    let bytes = bytes.clamp(1, MOST_BYTES);
    let measured = tokio::task::spawn_blocking(move || writes(bytes)).await;
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(Code::Other, format!("cannot write over loopback: {error}"))
    };
    match measured {
        Ok(Ok(cost)) => Ok(cost),
        Ok(Err(error)) => Err(failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}

fn writes(bytes: usize) -> io::Result<Cost> {
    let listener = listener::loopback()?;
    let address = listener.local_addr()?;
    let mut pairs = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let writer = TcpStream::connect(address)?;
        writer.set_nodelay(true)?;
        pairs.push((writer, listener.accept()?.0));
    }
    let message = vec![0; bytes];
    let (begun, before) = (Instant::now(), own_cpu()?);
    for (writer, _) in &mut pairs {
        writer.write_all(&message)?;
    }
    Ok(Cost { took: begun.elapsed(), cpu: own_cpu()?.saturating_sub(before) })
}

/// CPU time of this thread.
fn own_cpu() -> io::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    let times = [usage.user_time(), usage.system_time()];
    let micros = times.iter().map(|it| it.tv_sec() * 1_000_000 + it.tv_usec()).sum::<i64>();
    Ok(Duration::from_micros(u64::try_from(micros).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn writes_take_time() {
        crate::open_files::raise_limit().unwrap();
        let cost = measure(400).await.unwrap();
        assert!(cost.took > Duration::ZERO);
    }
}
