//! `make bench`: what `rt` costs beside the runc and the crun of this machine. `docs/benchmarks.md`
//! has the method. Nothing is asserted here: the tests hold the number of system calls.
//!
//! | file | what is in it |
//! |---|---|
//! | `runtime` | a runtime of this machine, and one command of it |
//! | `course` | what is raced: run, create + start + delete, exec, state |
//! | `table` | medians, quartiles, ratios |

mod course;
mod runtime;
mod table;

use std::ffi::OsString;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};

use course::{Course, Verb};
use runtime::Runtime;
use table::{Entry, Table};

/// Rounds that do not count.
const WARM_UP: usize = 3;
/// Rounds that do; `RT_BENCH_ROUNDS` is another number.
const ROUNDS: usize = 50;
/// What the scripts of the views exit with where this host cannot show that view.
const NO_SUCH_VIEW: i32 = 77;

fn main() -> Result<()> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let word = |i: usize| args.get(i).and_then(|arg| arg.to_str());
    match (word(0), word(1)) {
        (Some("--view"), Some(view)) => race(view),
        (Some("--peak"), Some(_)) => peak(&args[1..]),
        // cargo says --bench.
        _ => ["v1", "v2"].into_iter().try_for_each(in_view),
    }
}

/// This program once more, with the cgroups of the host as the view shows them.
fn in_view(view: &str) -> Result<()> {
    let script = format!("{}/integration/views/{view}.sh", env!("CARGO_MANIFEST_DIR"));
    let me = std::env::current_exe()?;
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", &script])
        .arg(me)
        .args(["--view", view]);
    match command.status().context("unshare")?.code() {
        Some(0) => Ok(()),
        Some(NO_SUCH_VIEW) => {
            println!("cgroup {view}: not on this host\n");
            Ok(())
        }
        _ => bail!("cgroup {view}: ended early"),
    }
}

/// In alternating rounds, so that the ratios of one round are of one moment.
fn race(view: &str) -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true)?;
    let rounds = match std::env::var("RT_BENCH_ROUNDS") {
        Ok(number) => number
            .parse()
            .with_context(|| format!("RT_BENCH_ROUNDS={number}"))?,
        Err(_) => ROUNDS,
    };
    let course = Course::new()?;
    let runtimes = Runtime::all(course.directory())?;
    println!("cgroup {view}, {rounds} rounds, {}", machine()?);
    runtimes
        .iter()
        .for_each(|runtime| println!("{}: {}", runtime.name, runtime.version));
    let mut table = Table::default();
    for verb in Verb::ALL {
        let (mut fit, mut unfit) = (vec![], vec![]);
        for runtime in &runtimes {
            match course
                .prepare(verb, runtime)
                .and_then(|()| course.run(verb, runtime))
            {
                Ok(_) => fit.push(runtime),
                Err(error) => unfit.push((runtime.name, format!("{error:#}"))),
            }
        }
        let mut times = vec![vec![]; fit.len()];
        for round in 0..WARM_UP + rounds {
            for turn in 0..fit.len() {
                // Whoever comes first in one round comes last in the next.
                let i = (turn + round) % fit.len();
                let time = course.run(verb, fit[i])?;
                if round >= WARM_UP {
                    times[i].push(time.as_secs_f64() * 1e3);
                }
            }
        }
        for (runtime, times) in fit.iter().zip(times) {
            let known = |name, number: Result<u64>| match number {
                Ok(number) => Some(number),
                Err(error) => {
                    eprintln!("{} {}: {name}: {error:#}", runtime.name, verb.name());
                    None
                }
            };
            let calls = known("system calls", course.calls(verb, runtime));
            let peak = known("peak memory", course.peak(verb, runtime));
            table.add(Entry {
                verb,
                name: runtime.name,
                times,
                calls,
                peak,
            });
            course.clear(runtime);
        }
        unfit
            .into_iter()
            .for_each(|(name, why)| table.note(verb, name, &why));
    }
    println!("\n{table}");
    Ok(())
}

fn machine() -> Result<String> {
    let system = nix::sys::utsname::uname()?;
    let cpus = std::thread::available_parallelism()?;
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    Ok(format!(
        "Linux {}, {cpus} × {model}",
        system.release().to_string_lossy()
    ))
}

/// Runs a command and prints the peak memory of the largest process of its tree, in KiB. In a
/// process of its own, since the kernel adds up over all children that there ever were.
fn peak(words: &[OsString]) -> Result<()> {
    let status = Command::new(&words[0])
        .args(&words[1..])
        .stdout(Stdio::null())
        .status()?;
    println!("{}", getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss());
    if !status.success() {
        bail!("{status}");
    }
    Ok(())
}
