//! `wingbeat load`: load on any WebSocket server, and what it took.
//!
//! ```text
//! plan ──► run ──► thread × N: client (connections) + workload (echo, idle, fanout, churn, channels)
//!           │          └─► stats ──┐
//!           ├─► live (while it goes on)
//!           └─► summary ◄──────────┘──► report (text, JSON), html
//! ```
#![forbid(unsafe_code)]

mod bursts;
mod channels;
mod churn;
mod client;
mod credit;
mod echo;
mod exchange;
mod fanout;
mod flight;
mod html;
mod live;
mod phoenix;
mod plan;
mod plot;
mod procfs;
mod reason;
mod report;
mod run;
mod schedule;
mod shared;
mod stamp;
mod stats;
mod summary;
mod target;
mod thread;

pub(crate) use live::{Display, LINE_EVERY, note, short_line};
pub(crate) use plan::{Machine, Plan};
pub(crate) use run::Run;
pub(crate) use stats::Live;

use crate::args::{LoadArgs, Mode};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use live::line;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};
use summary::Summary;

/// How often the main thread looks around.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs `wingbeat load`. Whether all went well: no connection failed, and no message was lost.
///
/// # Errors
/// [`Failure`] if the run could not be made.
pub(crate) fn load(args: &LoadArgs, interrupt: &Interrupt) -> Result<bool, Failure> {
    let machine = Machine::here();
    let plan = Plan::new(args, machine)?;
    let outputs = Outputs::open(args)?;
    let mut run = Run::start(plan, machine)?;
    connect(&run, interrupt);
    if run.progress().has_failed() {
        return Err(run.abandon());
    }
    run.begin();
    watch(&mut run, interrupt);
    let summary = run.finish()?;
    outputs.write(&summary)?;
    Ok(!summary.has_failed())
}

/// Waits until every connection stands or has failed.
fn connect(run: &Run, interrupt: &Interrupt) {
    let display = Display::connecting(run.progress().total);
    while !run.progress().is_complete() && !interrupt.is_raised() && !run.is_broken() {
        display.position(run.progress().connected.into());
        sleep(Duration::from_millis(5));
    }
    display.finish();
}

/// Shows a run until it is over.
fn watch(run: &mut Run, interrupt: &Interrupt) {
    let (began, whole) = (Instant::now(), run.plan().warmup + run.plan().duration);
    let display = Display::running(Some(whole));
    let mut live = Live::default();
    let mut shown = began;
    loop {
        let rest = run.attend();
        if rest.is_zero() || interrupt.is_raised() || run.is_broken() {
            break;
        }
        sleep(rest.min(LOOK_EVERY));
        if shown.elapsed() >= LINE_EVERY {
            run.take_live(&mut live);
            display.position(began.elapsed().as_secs());
            display.line(live_line(run, &live, shown.elapsed().as_secs_f64()));
            live = Live::default();
            shown = Instant::now();
        }
    }
    run.cut();
    display.finish();
}

fn live_line(run: &Run, live: &Live, seconds: f64) -> String {
    match run.plan().mode {
        Mode::Connect => line(live, seconds, "handshakes"),
        _ if run.plan().has_messages() => line(live, seconds, "messages"),
        _ => format!("{} connections, {} lost", run.progress().connected - run.dropped(), run.dropped()),
    }
}

/// Where the result goes. Opened before the run, so that a path that cannot be written to fails at once.
struct Outputs {
    json: Option<Output>,
    html: Option<Output>,
}

enum Output {
    Stdout,
    File(PathBuf, File),
}

impl Outputs {
    fn open(args: &LoadArgs) -> Result<Outputs, Failure> {
        let open = |path: &Option<PathBuf>| path.as_deref().map(Output::open).transpose();
        Ok(Outputs { json: open(&args.json)?, html: open(&args.html)? })
    }

    fn write(self, summary: &Summary) -> Result<(), Failure> {
        let stdout_is_taken = [&self.json, &self.html].into_iter().any(|output| matches!(output, Some(Output::Stdout)));
        let text = summary.to_string();
        if stdout_is_taken {
            note(text.trim_end());
        } else {
            Output::Stdout.write(&text)?;
        }
        self.json.map_or(Ok(()), |output| output.write(&summary.to_json()))?;
        self.html.map_or(Ok(()), |output| output.write(&summary.to_html()))
    }
}

impl Output {
    fn open(path: &Path) -> Result<Output, Failure> {
        if path.as_os_str() == "-" {
            return Ok(Output::Stdout);
        }
        let file = File::create(path).map_err(|error| Failure::cannot(format!("write {}", path.display()), error))?;
        Ok(Output::File(path.to_owned(), file))
    }

    fn write(self, text: &str) -> Result<(), Failure> {
        let (name, wrote) = match self {
            Output::Stdout => ("standard output".to_owned(), io::stdout().lock().write_all(text.as_bytes())),
            Output::File(path, mut file) => (path.display().to_string(), file.write_all(text.as_bytes())),
        };
        wrote.map_err(|error| Failure::cannot(format!("write {name}"), error))
    }
}
