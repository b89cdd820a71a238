//! `wingbeat demo`: a server and load on it in one process, and what they do together, until Ctrl-C.
#![forbid(unsafe_code)]

use crate::args::{Command, DemoArgs, LoadArgs, ServeArgs, name_of, parse};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::load::{Display, LINE_EVERY, Live, Machine, Plan, Run, note, short_line};
use crate::serve;
use std::ffi::OsString;
use std::thread;
use std::time::{Duration, Instant};
use wingbeat::engine::Drain;

/// How often the main thread looks around.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// As good as for ever.
const NO_END: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long the server may take to say goodbye.
const DRAIN: Duration = Duration::from_secs(2);

/// Runs `wingbeat demo`. Whether all went well: no connection failed, and no message was lost.
///
/// # Errors
/// [`Failure`] if the server or the load could not be started.
pub(crate) fn demo(args: &DemoArgs, interrupt: &Interrupt) -> Result<bool, Failure> {
    let machine = Machine::here();
    let server = serve::start(&serve_args(args)?)?;
    let address = server.tcp_address().ok_or_else(|| Failure::Failed("the demo needs a TCP address".into()))?;
    note(&format!("listening on {address}; Ctrl-C ends the demo"));
    let echo = load_args(args, &["echo", &format!("ws://{address}/echo")])?;
    let topic = format!("ws://{address}/topics?topic=demo");
    let publish = format!("ws://{address}/publish?topic=demo");
    let subscribers = args.subscribers.to_string();
    let fanout = load_args(args, &["fanout", &topic, "--publish-url", &publish, "--subscribers", &subscribers])?;
    let mut runs = Vec::new();
    for load in [echo, fanout] {
        runs.push(Run::start(Plan::new(&load, machine)?, machine)?);
    }
    let outcome = drive(runs, args, interrupt);
    server.drain(Drain { deadline: DRAIN, ..Drain::default() });
    server.join().map_err(|error| Failure::cannot("go on", error))?;
    outcome
}

/// Lets the runs begin together, shows them, and prints their results.
fn drive(mut runs: Vec<Run>, args: &DemoArgs, interrupt: &Interrupt) -> Result<bool, Failure> {
    while runs.iter().any(|run| !run.progress().is_complete() && !run.is_broken()) && !interrupt.is_raised() {
        thread::sleep(LOOK_EVERY);
    }
    if let Some(at) = runs.iter().position(|run| run.progress().has_failed()) {
        return Err(runs.swap_remove(at).abandon());
    }
    runs.iter_mut().for_each(Run::begin);
    watch(&mut runs, args, interrupt);
    runs.iter().for_each(Run::cut);
    let mut all_well = true;
    for run in runs {
        let summary = run.finish()?;
        println!("{summary}");
        all_well &= !summary.has_failed();
    }
    Ok(all_well)
}

fn watch(runs: &mut [Run], args: &DemoArgs, interrupt: &Interrupt) {
    let display = Display::running(args.duration);
    let (began, mut shown) = (Instant::now(), Instant::now());
    while !interrupt.is_raised() && runs.iter_mut().all(|run| !run.attend().is_zero() && !run.is_broken()) {
        thread::sleep(LOOK_EVERY);
        if shown.elapsed() < LINE_EVERY {
            continue;
        }
        let seconds = shown.elapsed().as_secs_f64();
        let figures = runs.iter().map(|run| {
            let mut live = Live::default();
            run.take_live(&mut live);
            format!("{} {}", name_of(run.plan().mode), short_line(&live, seconds))
        });
        display.line(figures.collect::<Vec<_>>().join(" | "));
        display.position(began.elapsed().as_secs());
        shown = Instant::now();
    }
    display.finish();
}

/// A server on a free port.
fn serve_args(args: &DemoArgs) -> Result<ServeArgs, Failure> {
    let workers = args.workers.map(|workers| format!("--workers={workers}"));
    let words = ["serve", "--bind", "127.0.0.1:0"].map(str::to_owned).into_iter().chain(workers);
    match command(words)? {
        Command::Serve(serve) => Ok(serve),
        _ => unreachable!("`serve` is parsed as itself"),
    }
}

fn load_args(args: &DemoArgs, words: &[&str]) -> Result<LoadArgs, Failure> {
    let payload = format!("--payload={}", args.payload);
    let words = ["load"].iter().chain(words).map(|word| word.to_string()).chain([payload, "--threads=1".to_owned()]);
    let Command::Load(mut load) = command(words)? else { unreachable!("`load` is parsed as itself") };
    load.duration = args.duration.unwrap_or(NO_END);
    load.warmup = Duration::ZERO;
    if load.subscribers.is_none() {
        load.connections = Some(args.connections);
    }
    Ok(*load)
}

/// The command that these words stand for: defaults stay in one place.
fn command(words: impl Iterator<Item = String>) -> Result<Command, Failure> {
    let words = ["wingbeat".to_owned()].into_iter().chain(words).map(OsString::from);
    parse(words).map(|cli| cli.command).map_err(|error| Failure::usage(format!("{error:?}")))
}
