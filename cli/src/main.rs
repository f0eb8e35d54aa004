//! The process around [`dctl`]: arguments in, exit code out.

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::Parser as _;
use dctl::args::Cli;
use dctl::console::Console;
use dctl::error::{Error, Exit};
use dctl::settings::Environment;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Success };
            // Help that nobody reads is no failure.
            let _ = error.print();
            return ExitCode::from(exit as u8);
        }
    };
    let mut console = Console::of_process(cli.style);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(dctl::commands::run(cli, &Environment::of_process(), &mut console));
            // A name that is still being looked up must not hold us back.
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err(Error::Output(error)),
    };
    match ended {
        Ok(()) => ExitCode::from(Exit::Success as u8),
        // The reader (`head`, a pager) has seen enough.
        Err(Error::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            console.error(&error);
            ExitCode::from(error.exit() as u8)
        }
    }
}
