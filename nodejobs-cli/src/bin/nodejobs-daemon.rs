//! The daemon, and the commands with large parts, beside `nodejobs`.

fn main() -> std::process::ExitCode {
    nodejobs_cli::whole()
}
