//! The helper that becomes a VM's supervisor; see `cpi_local::helper`.

fn main() -> std::process::ExitCode {
    cpi_local::helper::main(&std::env::args_os().skip(1).collect::<Vec<_>>())
}
