//! Counts between [`Report::begin`] and [`Report::finish`].

use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use std::fmt::Write;
use std::time::{Duration, Instant};
use uakari_bench::Result;
use uakari_bench::histogram::Histogram;

/// The measurement; latencies recorded before it begins are dropped.
#[derive(Default)]
pub struct Report {
    histogram: Histogram,
    begun: Option<Begun>,
}

struct Begun {
    at: Instant,
    cpu: Vec<Duration>,
}

impl Report {
    /// Counts one message or connection, with its duration in nanoseconds.
    pub fn record(&mut self, nanoseconds: u64) {
        if self.begun.is_some() {
            self.histogram.record(nanoseconds);
        }
    }

    /// Starts the measurement.
    pub fn begin(&mut self, cpu_pids: &[i32]) -> Result<()> {
        self.begun = Some(Begun { cpu: cpu_times(cpu_pids)?, at: Instant::now() });
        Ok(())
    }

    /// Ends the measurement and returns the line to print.
    pub fn finish(&mut self, cpu_pids: &[i32]) -> Result<String> {
        let begun = self.begun.take().ok_or("nothing was measured")?;
        let seconds = begun.at.elapsed().as_secs_f64();
        let cpu = cpu_times(cpu_pids)?;
        let messages = self.histogram.total();
        if messages == 0 {
            return Err("no message was answered in the measured time".into());
        }
        let mut line = format!(
            "messages={messages} seconds={seconds:.3} rate={:.0} p50_us={:.2} p99_us={:.2} \
             errors=0",
            messages as f64 / seconds,
            self.histogram.percentile(50.0) as f64 / 1e3,
            self.histogram.percentile(99.0) as f64 / 1e3,
        );
        let each = begun.cpu.iter().zip(&cpu);
        for (index, (before, after)) in each.enumerate() {
            let per_message = (*after - *before).as_secs_f64() * 1e6 / messages as f64;
            let start = if index == 0 { " cpu_us=" } else { "," };
            write!(line, "{start}{per_message:.4}")?;
        }
        Ok(line)
    }
}

/// The CPU time of each process with all its threads, in nanoseconds (`/proc/PID/stat` has the
/// same sum in steps of 10 ms).
fn cpu_times(pids: &[i32]) -> Result<Vec<Duration>> {
    pids.iter()
        .map(|pid| {
            let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(*pid))
                .map_err(|error| format!("CPU clock of {pid}: {error}"))?;
            Ok(Duration::from(clock_gettime(clock)?))
        })
        .collect()
}
