//! The program `wingbeat`: `serve`, `load`, `demo` and `new`.
#![forbid(unsafe_code)]

mod args;
mod chat;
mod demo;
mod descriptors;
mod failure;
mod interrupt;
mod load;
mod new;
mod routes;
mod serve;
mod service;
mod units;

use args::{Cli, Command, NoCommand};
use failure::Failure;
use interrupt::Interrupt;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(NoCommand::Asked(text)) => {
            // That nobody reads the help is no failure.
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(NoCommand::Wrong(line)) => return fail(&Failure::usage(line)),
    };
    match run(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => fail(&failure),
    }
}

/// Whether all went well.
fn run(cli: Cli) -> Result<bool, Failure> {
    let interrupt = Interrupt::install().map_err(|error| Failure::cannot("handle signals", error))?;
    match cli.command {
        Command::Serve(args) => serve::serve(&args, interrupt).map(|()| true),
        Command::Load(args) => load::load(&args, &interrupt),
        Command::Demo(args) => demo::demo(&args, &interrupt),
        Command::New(args) => {
            let next = new::new(&args)?;
            // The project is there, whether anybody reads about it or not.
            let _ = io::stdout().write_all(next.as_bytes());
            Ok(true)
        }
    }
}

fn fail(failure: &Failure) -> ExitCode {
    load::note(&format!("wingbeat: {failure}"));
    ExitCode::from(failure.exit_code())
}
