//! What processes use, as the kernel counts it.

use std::{fs, time::Duration};

use nix::{time::clock_getcpuclockid, unistd::Pid};

use crate::failure::Failure;

/// CPU time and memory of some processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Since each process began, of all its threads, in nanoseconds' precision.
    pub(super) cpu: Duration,
    pub(super) resident_kib: u64,
}

impl Usage {
    pub(super) fn of(pids: &[u32]) -> Result<Self, Failure> {
        let mut sum = Self::default();
        for pid in pids {
            let (cpu, resident_kib) = cpu(*pid).zip(resident_kib(*pid)).ok_or_else(|| {
                Failure::usage(format!("there is no process {pid} on this machine"))
                    .hint("--pid names the process of the server that is measured, on this machine")
            })?;
            sum.cpu += cpu;
            sum.resident_kib += resident_kib;
        }
        Ok(sum)
    }

    /// What this command itself has used.
    pub(super) fn own() -> Result<Self, Failure> {
        Self::of(&[std::process::id()])
    }
}

fn cpu(pid: u32) -> Option<Duration> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?);
    Some(clock_getcpuclockid(pid).ok()?.now().ok()?.into())
}

fn resident_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_uses_more() {
        let before = Usage::own().unwrap();
        let mut sum = 0_u64;
        while Usage::own().unwrap().cpu == before.cpu {
            sum = sum.wrapping_add(1);
        }
        let after = Usage::own().unwrap();
        assert!(after.cpu > before.cpu && after.resident_kib > 0, "{sum}");
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let failure = Usage::of(&[4_000_000_000]).unwrap_err();
        assert!(failure.message.contains("4000000000"), "{failure}");
    }
}
